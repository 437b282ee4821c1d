"""Self-contained HTML pages: report.html of an evaluation, and class_counts.html."""

from vimoclip.report.learning_curve import read_learning_curves
from vimoclip.report.page import write_class_histogram, write_report

__all__ = ["read_learning_curves", "write_class_histogram", "write_report"]
