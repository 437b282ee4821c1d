"""Marks by which an observation is recognised as a prediction, and as one that somebody has looked at.

BORIS keeps members that it does not know when it opens, edits, renames and saves, and when it copies an observation
into another project. Its tables have none of these, but the description, the comments of events, and the independent
variables as columns."""

import re
from collections.abc import Mapping
from typing import Any

PROJECT_MARK = "vimoclip_predictions"  # member of the project
OBSERVATION_MARK = "vimoclip_prediction"  # member of an observation
VARIABLES_KEY = "independent_variables"  # BORIS' member of a project and of an observation
REVIEWED_VARIABLE = "reviewed"  # independent variable, and column of BORIS' tables
REVIEWED, NOT_REVIEWED = "yes", "no"
DESCRIPTION_START = "Predicted by ViMoCLIP."  # of the description of each predicted observation
SCORE_COMMENT = re.compile(r"score \d\.\d{3}")  # of each predicted event


def is_predictions_project(project: Mapping[str, Any]) -> bool:
    """Return whether a project was written from predictions."""
    return PROJECT_MARK in project


def is_prediction(observation: Mapping[str, Any]) -> bool:
    """Return whether an observation of any project was written from a prediction, reviewed or not."""
    description = str(observation.get("description", ""))
    return OBSERVATION_MARK in observation or is_prediction_description(description)


def is_reviewed(observation: Mapping[str, Any]) -> bool:
    """Return whether an observation is marked as reviewed."""
    variables = observation.get(VARIABLES_KEY)
    return isinstance(variables, dict) and is_reviewed_value(variables.get(REVIEWED_VARIABLE))


def is_reviewed_value(value: object) -> bool:
    """Return whether a value of the independent variable, or a cell of its column, says that it was reviewed."""
    return str(value).strip().casefold() == REVIEWED


def is_prediction_row(description: str, comment: str) -> bool:
    """Return whether a row of BORIS' tables is of a prediction, by the observation's description or the comment."""
    return is_prediction_description(description) or SCORE_COMMENT.fullmatch(comment.strip()) is not None


def is_prediction_description(description: str) -> bool:
    """Return whether the description of an observation is that of a prediction."""
    return DESCRIPTION_START in " ".join(description.split())
