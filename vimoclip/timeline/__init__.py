"""The timeline of one video: bouts of actions, and the files that hold them."""

from vimoclip.timeline.bouts import (
    Bout,
    Span,
    StreamDisagreement,
    Timeline,
    find_bouts,
    find_disagreements,
    observed_spans,
)
from vimoclip.timeline.files import (
    FRAMES_SUFFIX,
    LONGEST_ENDING,
    WINDOWS_SUFFIX,
    check_output_name,
    frames_file,
    read_header,
    read_timeline,
    write_result,
    write_timeline,
)
from vimoclip.timeline.frames import write_frames

__all__ = [
    "FRAMES_SUFFIX",
    "LONGEST_ENDING",
    "WINDOWS_SUFFIX",
    "Bout",
    "Span",
    "StreamDisagreement",
    "Timeline",
    "check_output_name",
    "find_bouts",
    "find_disagreements",
    "frames_file",
    "observed_spans",
    "read_header",
    "read_timeline",
    "write_frames",
    "write_result",
    "write_timeline",
]
