"""BORIS, the ethologists' annotation program (Friard and Gamba 2016): its events in, and bouts out.

The only reader of its projects (.boris) and aggregated events (CSV, TSV), and the only writer of what it imports."""

from pathlib import Path

from vimoclip.boris.aggregated import read_aggregated
from vimoclip.boris.events import EventCollection
from vimoclip.boris.project import read_project


def read_events(path: Path) -> EventCollection:
    """A project, or aggregated events. Raises UserError for what is neither."""
    return read_project(path) if path.suffix.lower() == ".boris" else read_aggregated(path)
