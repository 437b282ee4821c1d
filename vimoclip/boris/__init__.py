"""Exchange with BORIS, a program for behavioural observations (Friard and Gamba 2016).

Reads its projects (.boris) and aggregated events (CSV, TSV), and exports bouts to it. No other package does either."""

from vimoclip.boris.events import BehaviorEvent, EventCollection, Recording
from vimoclip.boris.export import export_bouts
from vimoclip.boris.reader import read_events

__all__ = ["BehaviorEvent", "EventCollection", "Recording", "export_bouts", "read_events"]
