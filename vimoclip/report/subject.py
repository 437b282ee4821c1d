"""What a report is about: all that it needs to know of an evaluation."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np


class Evaluation(Protocol):
    """`metrics`: as in metrics.json; `per_class`: the rows of per_class.csv; N videos, C classes."""

    @property
    def title(self) -> str: ...
    @property
    def metrics(self) -> Mapping[str, Any]: ...
    @property
    def per_class(self) -> Sequence[Mapping[str, Any]]: ...
    @property
    def classes(self) -> Sequence[str]: ...
    @property
    def videos(self) -> Sequence[str]: ...
    @property
    def scores(self) -> np.ndarray: ...  # (N, C) float64, probabilities
    @property
    def targets(self) -> np.ndarray: ...  # (N, C) bool
    @property
    def partitions(self) -> Mapping[str, Sequence[str]]: ...  # name -> a segment for each class, or {}
