"""The timeline of one video: bouts of actions, and the files that hold them."""

from vimoclip.timeline.bouts import Bout, Timeline, edges, find_bouts
from vimoclip.timeline.files import check_place, made_with, write

__all__ = ["Bout", "Timeline", "check_place", "edges", "find_bouts", "made_with", "write"]
