"""Exchange with BORIS, a program for behavioural observations (Friard and Gamba 2016).

Reads its projects (.boris) and aggregated events (CSV, TSV), and exports bouts as its events and as projects."""

from vimoclip.boris.events import BehaviorEvent, EventCollection, Recording
from vimoclip.boris.files import export_bouts, read_events
from vimoclip.boris.predictions import PredictedObservation, PredictionsUpdate, check_predictions, write_predictions

__all__ = [
    "BehaviorEvent",
    "EventCollection",
    "PredictedObservation",
    "PredictionsUpdate",
    "Recording",
    "check_predictions",
    "export_bouts",
    "read_events",
    "write_predictions",
]
