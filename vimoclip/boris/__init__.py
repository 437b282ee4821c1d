"""BORIS, a program for behavioural observations (Friard and Gamba 2016): reads its events, exports bouts to it.

The only reader of its projects (.boris) and aggregated events (CSV, TSV), and the only writer of what it imports."""

from vimoclip.boris.events import BehaviorEvent, EventCollection, Recording
from vimoclip.boris.export import export_bouts
from vimoclip.boris.reader import read_events

__all__ = ["BehaviorEvent", "EventCollection", "Recording", "export_bouts", "read_events"]
