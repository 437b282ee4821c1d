"""Rendering of an evaluation as report.html, one self-contained page for a screen, a phone or paper."""

from vimoclip.report.page import write_report

__all__ = ["write_report"]
