"""Differences between the rows of the table: to RGB alone, and to the best probe."""

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any, NamedTuple

from TFAM.run_bootstrap import METRICS, MetricDifference, MetricDifferences, RunBootstrap
from TFAM.run_groups import RGB, RunGroup, RunMetrics, have_same_inputs, is_linear_probe, is_probe, pairs_by_seed
from vimoclip.annotations.split_protocol import ZERO_SHOT
from vimoclip.errors import UserError

# settings in which the configs of one experiment differ; all others must equal those of the RGB run
CONFIG_SPECIFIC_KEYS = {"model.fusion", "model.positions", "model.dropout", "model.classifier_dropout"}
CONFIG_SPECIFIC_KEYS |= {"training.batch_size", "data.motion"}
# what a table says about `ProbeComparison.is_better`; "" without an interval
VERDICTS = {"yes": "", "unclear": "not clearly better than the probe", "no": "not better than the probe", "": ""}
Groups = Mapping[RunGroup, Sequence[RunMetrics]]


class ProbeComparison(NamedTuple):
    """`probe`: the probe with the highest macro AP; `difference`: of macro AP to it, on the same clips."""

    probe: str
    difference: MetricDifference

    @property
    def is_better(self) -> str:
        """Return a key of VERDICTS: `yes` or `no` if the interval lies above 0 or not, `unclear` if it includes 0."""
        _, low, high = self.difference
        if low is None or high is None:
            return ""
        return "yes" if low > 0 else "no" if high <= 0 else "unclear"


def compare_to_config(
    groups: Groups, bootstrap: RunBootstrap, baseline_config: str = RGB
) -> tuple[dict[RunGroup, MetricDifferences], list[str]]:
    """Return (differences to a config by group, reasons why groups have no difference or no interval)."""
    differences: dict[RunGroup, MetricDifferences] = {}
    messages: list[str] = []
    for group in groups:
        if group.config == baseline_config or group.protocol == ZERO_SHOT:
            continue
        try:
            baseline = _find_baseline(group, groups, baseline_config)
        except UserError as error:
            messages.append(f"{group.config}, {group.protocol_label}: no difference to {baseline_config}: {error}")
            continue
        if found := _difference(group, groups[group], baseline_config, baseline, bootstrap, messages):
            differences[group] = found
    return differences, list(dict.fromkeys(messages))


def compare_to_probes(groups: Groups, bootstrap: RunBootstrap) -> tuple[dict[RunGroup, ProbeComparison], list[str]]:
    """Return (the comparison of each group that is no probe, control or zero-shot run, reasons of missing ones).

    The best probe is selected on the reported clips, which favours the probe. Probes of other motion are left out, and
    those whose student makes numbers too high, unless it is the group's."""
    comparisons: dict[RunGroup, ProbeComparison] = {}
    messages: list[str] = []
    for group, runs in groups.items():
        is_control = "data.motion" in runs[0]["settings"]
        if is_control or group.protocol == ZERO_SHOT or is_probe(runs[0]["fusion"]):
            continue
        probes = [
            other
            for other, other_runs in groups.items()
            if is_probe(other_runs[0]["fusion"])
            and other.protocol == group.protocol
            and _data_settings(other_runs) == _data_settings(runs)
            and other.student in ("", group.student)
            and all(have_same_inputs(*pair) for pair in pairs_by_seed(runs, other_runs))
        ]
        if probes:
            paired = [other for other in probes if pairs_by_seed(runs, groups[other])] or probes
            best = max(paired, key=lambda other: mean(run["map_macro"] for run in groups[other]))
            if found := _difference(group, runs, best.config, groups[best], bootstrap, messages):
                comparisons[group] = ProbeComparison(best.config, found["map_macro"])
    return comparisons, list(dict.fromkeys(messages))


def _difference(
    group: RunGroup,
    runs: Sequence[RunMetrics],
    baseline_name: str,
    baseline: Sequence[RunMetrics],
    bootstrap: RunBootstrap,
    messages: list[str],
) -> MetricDifferences:
    """Return mean differences over common seeds, with intervals if possible; add to `messages` what is missing."""
    differences: MetricDifferences = {}
    missing = f"difference to {baseline_name}"
    try:
        pairs = bootstrap.pair_runs(runs, baseline)
        values = {metric: mean(run[metric] - other[metric] for run, other in pairs) for metric in METRICS}
        differences = {metric: MetricDifference(value) for metric, value in values.items()}
        missing = f"interval of the difference to {baseline_name}"
        if bootstrap.resamples:
            differences = bootstrap.intervals(pairs, values)
    except UserError as error:
        messages.append(f"{group.config}, {group.protocol_label}: no {missing}: {error}")
    return differences


def _find_baseline(group: RunGroup, groups: Groups, config: str) -> Sequence[RunMetrics]:
    """Return the runs of a config to compare a group with, of any student. Raises UserError if there are none."""
    first = groups[group][0]
    candidates = [
        runs
        for other, runs in groups.items()
        if (other.config, other.protocol) == (config, group.protocol)
        and (config != RGB or runs[0]["fusion"] == RGB)
        and _have_shared_settings(first, runs[0])
    ]
    if not candidates:
        raise UserError(f"no run of {config} has the same protocol and settings")
    candidates = [runs for runs in candidates if have_same_inputs(runs[0], first)] or candidates
    settings = first["settings"].items()
    return max(candidates, key=lambda runs: sum(item in settings for item in runs[0]["settings"].items()))


def _have_shared_settings(run: RunMetrics, other: RunMetrics) -> bool:
    """Return whether two runs differ only in what configs differ in; a linear probe depends only on its data."""
    data_only = any(is_linear_probe(each["fusion"]) for each in (run, other))
    settings, other_settings = (
        {
            key: value
            for key, value in each["settings"].items()
            if key not in CONFIG_SPECIFIC_KEYS and (key.startswith("data.") or not data_only)
        }
        for each in (run, other)
    )
    return settings == other_settings


def _data_settings(runs: Sequence[RunMetrics]) -> dict[str, Any]:
    return {key: value for key, value in runs[0]["settings"].items() if key.startswith("data.")}
