"""BORIS, a program for behavioural observations (Friard and Gamba 2016): reads its events, exports bouts to it.

The only reader of its projects (.boris) and aggregated events (CSV, TSV), and the only writer of what it imports."""

from vimoclip.boris.events import Event, Events, Recording
from vimoclip.boris.export import export
from vimoclip.boris.read_events import read

__all__ = ["Event", "Events", "Recording", "export", "read"]
