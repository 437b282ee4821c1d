"""Finished runs of TFAM: their metrics.json, and the groups of runs that share a row of the table."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vimoclip.annotations.few_shot import MORE_LABELS
from vimoclip.annotations.split_protocol import HELD_OUT

RunMetrics = Mapping[str, Any]  # content of metrics.json, and `folder`: the run folder
RGB = "rgb"  # the config that others are compared with
COMPARED_INPUTS = ("rgb_train_h5", "rgb_val_h5", "rgb_test_h5", "motion_h5", "selection")  # in inputs_sha256
# Table 2 of the paper, which does not say with which positions and dropout
PAPER_MAP_MICRO = {
    "rgb": 0.7583,
    "motion": 0.5105,
    "concat_embedding": 0.7456,
    "concat_time": 0.7699,
    "cross_attention": 0.7709,
}
STUDENT_NOTES = {
    "published": "student published: the epoch of the student was selected on the evaluation split, and it was trained "
    "on the model-selection split, so the numbers are too high.",
    "of another selection": "student of another selection: the student may have been trained on the model-selection "
    "split.",
    "unknown": "student unknown: the protocol of the student is not known.",
    MORE_LABELS: "student of more labels: the student of a few-shot run was not trained on the labels of the "
    "run's clips alone (or it is not known on which), so the numbers are too high for so few labels.",
}


class RunGroup(NamedTuple):
    """Key of the runs in one row of the table.

    `student`: keys of STUDENT_NOTES, or ""; `settings`: `key=value ...`; `inputs`:
    a hash of what the runs read, if runs of the same config and settings read different files."""

    config: str
    protocol: str
    student: str
    settings: str
    inputs: str = ""

    @property
    def protocol_label(self) -> str:
        """Return the protocol, and the student's if it differs."""
        return f"{self.protocol}, student {self.student}" if self.student else self.protocol


def read_metrics(path: Path) -> dict[str, Any]:
    """Read metrics.json and add the run folder under the key `folder`. Raises UserError."""
    from vimoclip.io.yaml_json import read_json

    return read_json(path, "delete it and train again") | {"folder": path.parent}


def group_runs(runs: Iterable[RunMetrics]) -> dict[RunGroup, list[RunMetrics]]:
    """Group runs by config, protocol and settings; the paper's five configs first, in its order, then by name."""
    groups: dict[RunGroup, list[RunMetrics]] = defaultdict(list)
    for run in runs:
        settings = " ".join(f"{key}={value}" for key, value in sorted(run["settings"].items()))
        groups[RunGroup(run["config"], run["protocol"], student_remark(run), settings)].append(run)
    groups = split_by_inputs(groups)
    paper_order = list(PAPER_MAP_MICRO)

    def sort_key(group: RunGroup) -> tuple[int, RunGroup]:
        return (paper_order.index(group.config) if group.config in paper_order else len(paper_order)), group

    return {group: groups[group] for group in sorted(groups, key=sort_key)}


def is_probe(fusion: str) -> bool:
    """Return `Fusion.is_probe`; importing `Fusion` would import torch."""
    return fusion.startswith("probe_")


def is_linear_probe(fusion: str) -> bool:
    """Return `Fusion.is_linear_probe`, without torch."""
    return is_probe(fusion) and fusion != "probe_attentive"


def student_remark(run: RunMetrics) -> str:
    """Return how the student of a run's motion has seen more than the run, keys of STUDENT_NOTES; else "".

    That is: a held_out run's student was not held out likewise, or a few-shot run's had more labels."""
    from TFAM.packing import Fusion  # imports torch, which --help doesn't need

    remarks = []
    is_held_out = run["protocol"] == HELD_OUT and run["settings"].get("data.motion") != "none"
    if is_held_out and Fusion(run["fusion"]).uses_motion:  # the fusion of a zero-shot run is none of these
        if run["student_protocol"] != HELD_OUT:
            remarks.append(run["student_protocol"] or "unknown")
        elif run.get("student_selection_agrees") is False:
            remarks.append("of another selection")
    if run.get("student_has_more_labels"):
        remarks.append(MORE_LABELS)
    return ", ".join(remarks)


def split_by_inputs(groups: Mapping[RunGroup, Sequence[RunMetrics]]) -> dict[RunGroup, list[RunMetrics]]:
    """Split groups whose runs read different files; `inputs` is then a hash of these.

    Motion of students that differ only in the seed, which is also the run's, counts as the same. So does one file for
    all seeds, which may be the seed of its student in one of the runs."""
    result: dict[RunGroup, list[RunMetrics]] = defaultdict(list)
    for group, runs in groups.items():
        inputs = [json.dumps(run.get("inputs_sha256"), sort_keys=True) for run in runs]
        if len(set(inputs)) > 1:
            inputs = [json.dumps(_comparable_inputs(run), sort_keys=True) for run in runs]
        for run, run_inputs in zip(runs, inputs, strict=True):
            digest = hashlib.sha256(run_inputs.encode()).hexdigest()[:8] if len(set(inputs)) > 1 else ""
            result[group._replace(inputs=digest)].append(run)
    return result


def _comparable_inputs(run: RunMetrics) -> Any:
    inputs = run.get("inputs_sha256")
    if inputs and has_own_student(run):
        return inputs | {"motion_h5": run["student_sha256"]}
    return inputs


def has_own_student(run: RunMetrics) -> bool:
    """Return whether a run's motion is of a student that was trained with the run's seed."""
    return run.get("student_seed") is not None and run["student_seed"] == run["seed"]


def pairs_by_seed(runs: Sequence[RunMetrics], others: Sequence[RunMetrics]) -> list[tuple[RunMetrics, RunMetrics]]:
    """Return the pairs of a run and another one of its seed."""
    other_by_seed = {run["seed"]: run for run in others}
    return [(run, other_by_seed[run["seed"]]) for run in runs if run["seed"] in other_by_seed]


def have_same_inputs(first: RunMetrics, second: RunMetrics) -> bool:
    """Return whether two runs had the same training, model-selection and evaluation split, and motion.

    What one of them does not record, like the motion of RGB alone, may be anything."""
    first_hashes, second_hashes = (run.get("inputs_sha256", {}) for run in (first, second))
    pairs = [(first_hashes.get(key), second_hashes.get(key)) for key in COMPARED_INPUTS]
    return all(None in pair or pair[0] == pair[1] for pair in pairs)
