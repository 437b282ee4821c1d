"""report.html: an evaluation as one page that works without network, on a screen, a phone or on paper."""

from vimoclip.report.page import write

__all__ = ["write"]
