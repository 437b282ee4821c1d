"""Evaluation of predictions: metrics with intervals, tables and files of evaluate.py."""

from vimoclip.evaluation.evaluator import Evaluation, EvaluationSettings, evaluate, read_selection_predictions

__all__ = ["Evaluation", "EvaluationSettings", "evaluate", "read_selection_predictions"]
