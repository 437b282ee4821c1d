"""The timeline of one video: bouts of actions, and the files that hold them."""

from vimoclip.timeline.bouts import Bout, Span, StreamDisagreement, Timeline, find_bouts, observed_spans
from vimoclip.timeline.files import (
    LONGEST_SUFFIX,
    check_output_name,
    read_provenance,
    read_timeline,
    write_timeline,
)

__all__ = [
    "LONGEST_SUFFIX",
    "Bout",
    "Span",
    "StreamDisagreement",
    "Timeline",
    "check_output_name",
    "find_bouts",
    "observed_spans",
    "read_provenance",
    "read_timeline",
    "write_timeline",
]
