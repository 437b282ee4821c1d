"""Self-contained HTML pages: report.html of an evaluation, and class_counts.html."""

from vimoclip.report.page import write_class_histogram, write_report

__all__ = ["write_class_histogram", "write_report"]
