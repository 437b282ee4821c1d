"""The timeline of one video: bouts of actions, and the files that hold them."""

from vimoclip.timeline.bouts import Bout, Timeline, find_bouts
from vimoclip.timeline.files import LONGEST_SUFFIX, check_output_name, read_provenance, write_timeline

__all__ = ["LONGEST_SUFFIX", "Bout", "Timeline", "check_output_name", "find_bouts", "read_provenance", "write_timeline"]
