"""Exchange with BORIS, a program for behavioural observations (Friard and Gamba 2016).

Reads its projects (.boris) and aggregated events (CSV, TSV), and exports bouts as its events."""

from vimoclip.boris.events import BehaviorEvent, EventCollection, Recording
from vimoclip.boris.files import export_bouts, read_events

__all__ = ["BehaviorEvent", "EventCollection", "Recording", "export_bouts", "read_events"]
