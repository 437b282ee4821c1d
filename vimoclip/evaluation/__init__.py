"""Evaluation of predictions: metrics with intervals, tables and files of evaluate.py."""

from vimoclip.evaluation.evaluator import Evaluation, EvaluationSettings, evaluate

__all__ = ["Evaluation", "EvaluationSettings", "evaluate"]
