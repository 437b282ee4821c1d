"""The evaluation of predictions: what evaluate.py prints, writes and reports."""

from vimoclip.evaluation.evaluator import Evaluation, Settings, evaluate, read_selection

__all__ = ["Evaluation", "Settings", "evaluate", "read_selection"]
