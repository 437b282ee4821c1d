"""Sentences about what limits the numbers of an evaluation: `notes` of metrics.json."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from vimoclip.annotations.split_protocol import (
    HELD_OUT,
    PROTOCOL_NOTES,
    PUBLISHED,
    THREE_SPLITS,
    UNKNOWN_PROTOCOL_NOTE,
    ZERO_SHOT,
)
from vimoclip.evaluation.metrics_with_ci import MIN_POSITIVES_FOR_CI, ScoredVideos
from vimoclip.evaluation.sources import PredictionSource
from vimoclip.io.names import list_some

FEW_POSITIVES = 10  # below this number a class's AP depends on single clips


def prediction_caveats(
    source: PredictionSource,
    scored: ScoredVideos,
    class_rows: Sequence[dict[str, Any]],
    videos: Sequence[str],
    expected: Sequence[str],
) -> list[str]:
    """Return caveats about the protocol, missing videos, constant scores and rare classes.

    `class_rows`: of per_class.csv; `videos`: the scored ones among the `expected`."""
    caveats = []
    if source.protocol in (PUBLISHED, ZERO_SHOT):
        caveats.append(PROTOCOL_NOTES[source.protocol])
    if source.student_caveat:
        caveats.append(source.student_caveat)
    if source.protocol is None:
        caveats.append(UNKNOWN_PROTOCOL_NOTE)
    scored_videos = set(videos)
    if missing := [video for video in expected if video not in scored_videos]:
        caveats.append(
            f"Clips without predictions are left out, so that these numbers are of the others: {len(missing)} "
            f"({list_some(missing)})."
        )
    if unlabelled := int((~scored.targets.any(1)).sum()):
        labelled = len(videos) - unlabelled
        caveats.append(f"Clips without a label: {unlabelled}; hit@1 and precision@k are over the other {labelled}.")
    if (scored.scores == scored.scores[0]).all() and len(videos) > 1:
        caveats.append("All clips have the same scores: these predictions do not depend on the clips.")
    else:
        constant = [row["class"] for row in class_rows if np.ptp(scored.scores[:, row["id"]]) == 0]
        if constant and len(videos) > 1:
            caveats.append(f"The same score for all clips: {len(constant)} of the classes ({list_some(constant)}).")
    if perfect := [row["class"] for row in class_rows if row["ap"] == 1 and row["positives"] < len(videos)]:
        caveats.append(
            f"An AP of exactly 1 is suspicious; check these {len(perfect)} of the classes: {list_some(perfect)}."
        )
    if rare := [row["class"] for row in class_rows if 0 < row["positives"] < FEW_POSITIVES]:
        caveats.append(
            f"Fewer than {FEW_POSITIVES} positive clips: {len(rare)} of the classes, whose AP hangs on single clips "
            f"more than its interval can show; below {MIN_POSITIVES_FOR_CI} none is given."
        )
    if empty := [row["class"] for row in class_rows if not row["positives"]]:
        caveats.append(
            f"No positive clip, so no AP and no part in macro averages: {len(empty)} of the classes "
            f"({list_some(empty)})."
        )
    return caveats


def context_caveats(
    source: PredictionSource,
    other: PredictionSource | None,
    animal_classes: Sequence[Sequence[str]],
    *,
    thresholds_fitted: bool,
    probabilities_as_logits: bool,
) -> list[str]:
    """Return caveats about thresholds, --logits, comparisons of different protocols, and videos with several animals.

    `animal_classes`: the classes of animals of each video."""
    caveats = []
    if thresholds_fitted and source.protocol not in (HELD_OUT, THREE_SPLITS):
        caveats.append(
            "Thresholds are fitted on selection clips that these predictions' model may have been trained on."
        )
    if probabilities_as_logits:
        caveats.append("All scores lie from 0 to 1, like probabilities, but --logits has them read as logits.")
    if other and other.protocol != source.protocol:
        protocol, other_protocol = (s.protocol or "not known" for s in (source, other))
        caveats.append(
            f"The two that are compared chose their epochs by different protocols (here {protocol}, there "
            f"{other_protocol}), so their difference is not of the models alone."
        )
    if several := sum(len(set(names)) > 1 for names in animal_classes):
        caveats.append(f"Clips that show animals of several classes of animals count in each: {several}.")
    return caveats
