"""The sections of a model card about data, protocol, metrics and limits."""

from collections.abc import Iterable, Mapping
from typing import Any

from TFAM.learning_curve import markdown_table
from TFAM.run_evaluation import EVALUATION, SELECTION, TRAINING, RunEvaluation
from vimoclip.annotations.split_protocol import PROTOCOL_NOTES, PUBLISHED, UNKNOWN_PROTOCOL_NOTE
from vimoclip.evaluation import calibration_file, resampling
from vimoclip.evaluation.evaluator import FEW_POSITIVES
from vimoclip.evaluation.sources import student_caveat
from vimoclip.metrics import METRIC_NAMES, format_fraction
from vimoclip.report.page import MISSING, format_interval, format_number


def data_section(document: Mapping[str, Any], dataset: str, run: RunEvaluation) -> str:
    """Return which clips the model was trained, selected and evaluated on, and how frames were sampled."""
    metrics = run.metrics
    counts = {TRAINING: metrics.get("train_num_videos"), SELECTION: metrics.get("selection_num_videos")}
    rows = [
        [role, f"{count:,}", f"{run.sources[role]:,}" if run.sources else "unknown"]
        for role, count in (counts | {EVALUATION: metrics["num_videos"]}).items()
        if count is not None
    ]
    left_out = sum(metrics.get(f"{prefix}left_out") or 0 for prefix in ("", "train_", "selection_"))
    shots = document["fusion"]["config"]["data"].get("shots")
    sampling = document["sampling"]
    sentences = [
        f"Clips of the data set `{dataset}`. A source is a recording, an animal or a site.",
        f"{left_out} clips were left out, as they have no fitting motion." if left_out else "",
        f"Few-shot: {shots} clips of each action were drawn for training." if shots else "",
    ]
    frames = [
        f"one frame in {sampling['stride']}" if sampling["stride"] > 1 else "every frame",
        f"at most {sampling['fps']:g} frames per second" if sampling["fps"] else "",
        f"at most {sampling['max_frames']} frames of a clip" if sampling["max_frames"] else "",
    ]
    sentences.append(f"Sampled frames: {', '.join(filter(None, frames))}.")
    if run.clip_seconds is not None and run.rates is not None:
        low, median, high = run.clip_seconds
        sentences.append(
            f"The evaluated clips last {median:.2g} s in the median (90 % of them {low:.2g} to {high:.2g} s), with "
            f"{run.rates[1]:.3g} sampled frames per second in the median ({run.rates[0]:.3g} to {run.rates[2]:.3g})."
        )
    return f"## Data\n{_join(sentences)}\n\n{markdown_table(['clips for', 'number', 'sources'], rows)}"


def protocol_section(run: RunEvaluation, has_frozen_student: bool) -> str:
    """Return how the epoch was chosen, also that of the student, and what that means for the numbers."""
    metrics = run.metrics
    protocol = metrics.get("protocol") or PUBLISHED
    lines = [PROTOCOL_NOTES.get(protocol, UNKNOWN_PROTOCOL_NOTE)]
    if protocol == PUBLISHED:
        lines.append("**Do not take the numbers of this card as an estimate for new clips.**")
    epoch = "The model has no epochs" if metrics.get("epoch") is None else f"Epoch {metrics['epoch']} was used"
    lines.append(f"{epoch}; chosen by: {metrics.get('epoch_chosen_by', 'unknown')}.")
    if found := metrics.get("regularisation"):
        lines.append(f"Regularisation: C = {found['C']:g}.")
    if has_frozen_student:
        lines.append("The student (the motion encoder) is the unchanged image encoder, which depends on no labels.")
    elif metrics.get("student_protocol"):
        shots = metrics.get("student_shots")
        clips = f"{shots} clips of each action" if shots else "all training clips"
        student = f"Protocol of the student (the motion encoder): `{metrics['student_protocol']}`, seed "
        student += f"{metrics.get('student_seed')}, trained on {clips}"
        if metrics.get("student_selection_agrees"):
            student += ", with the same model-selection split"
        lines.append(f"{student}.")
    lines.append(student_caveat(metrics, protocol) or "")
    lines.append(
        f"This card describes one run, of seed {metrics['seed']}. Runs of other seeds give other numbers, and the "
        "intervals do not include that."
    )
    return f"## How the model was selected\n{_join(lines)}"


def results_section(document: Mapping[str, Any], run: RunEvaluation, earlier: str) -> str:
    """Return the metrics of the evaluated clips, and those of each action. `earlier`: sections that precede it."""
    clips = f"{run.metrics['num_videos']} clips of the {run.metrics.get('reported_split', 'val')} split"
    calibration = document["calibration"]
    calibrated = calibration_file.describe(calibration) if calibration else "scores are not calibrated"
    if run.result is None:
        rows = [[METRIC_NAMES[key].label, format_fraction(run.metrics[key])] for key in ("map_macro", "map_micro")]
        introduction = (
            f"On {clips}. **Intervals and chance levels could not be computed**, as the labels of these clips were not "
            f"available, or had changed, when the model was exported. The {calibrated}."
        )
        return "\n\n".join(
            [f"## Results\n{introduction}", markdown_table(["metric", "value"], rows), _actions(document, run)]
        )
    metrics, bootstrap = run.result.metrics, run.result.metrics["bootstrap"]
    classes, entries = f"{metrics['classes_with_a_positive']} classes", metrics | metrics["calibration"]
    named = [
        (f"{name.label}: {name.description.format(classes=classes)}", entries[key])
        for key, name in METRIC_NAMES.items()
    ]
    named += [
        (f"{METRIC_NAMES['map_macro'].label}, of the {group['num_videos']} clips of {name}", group["map_macro"])
        for name, group in metrics["animal_classes"].items()
    ]
    rows = [
        [
            *(name, format_number(entry["value"]), format_interval(entry["ci95"])),
            *(format_number(entry["baseline"]), format_number(entry["random"])),
        ]
        for name, entry in named
        if entry and entry["value"] is not None
    ]
    introduction = (
        f"On {clips}, which the model was not trained on. 1 is perfect, except where lower is better. Intervals are "
        f"95 % bootstrap intervals over {bootstrap['units']} {bootstrap['over']}. *constant* and *random* are "
        "predictors that never look at a clip: one gives each action its frequency in training, the other random "
        "scores. A model that is not better than they are has learned nothing."
    )
    if bootstrap["over"] == resampling.CLIPS:
        introduction += (
            " Clips of one recording, animal or site are not independent, so the intervals are too narrow if several "
            "clips come from each."
        )
    is_noted = calibration and calibration["method"] == "none"
    notes = [*([] if is_noted else [f"The {calibrated}."]), *metrics["notes"]]
    return "\n\n".join(
        [
            f"## Results\n{introduction}",
            markdown_table(["metric", "value", "95 % interval", "constant", "random"], rows),
            "\n".join(f"- {note}" for note in notes if note not in earlier),
            _actions(document, run),
        ]
    )


def _actions(document: Mapping[str, Any], run: RunEvaluation) -> str:
    """Return a table of the actions: clips, average precision, threshold."""
    calibration = (document["calibration"] or {}).get("classes", {})
    by_name = {row["class"]: row for row in run.result.per_class} if run.result else {}
    rows = []
    for name in document["classes"]:
        row = by_name.get(name, {})
        selection = calibration.get(name, {}).get("positives")
        rows.append(
            [
                name,
                *(_mark_few(row.get(key)) for key in ("train_positives", "positives")),
                *(format_number(row.get("ap")), format_interval((row.get("ap_low"), row.get("ap_high")))),
                format_number(row.get("ap_random")),
                *(format_number(document["thresholds"][name], 3), _mark_few(selection)),
            ]
        )
    header = ["action", "training clips", "evaluated clips", "AP", "95 % interval", "AP by chance"]
    header += ["threshold", "clips for the threshold"]
    is_fitted = document["calibration"] or document["raw_thresholds"]
    thresholds = (
        "fitted on the model-selection split" if is_fitted else "not fitted: there was no model-selection split"
    )
    text = (
        "The numbers of clips are those of clips that show the action. AP is its average precision; *by chance* is "
        f"that of random scores. A score of at least the threshold counts as the action; thresholds were {thresholds}. "
        f"`*`: fewer than {FEW_POSITIVES} clips, so the number that rests on them depends on single clips."
    )
    return f"### Actions\n{text}\n\n{markdown_table(header, rows)}"


def limits_section(document: Mapping[str, Any], dataset: str, run: RunEvaluation) -> str:
    """Return what the numbers of the card do not show."""
    metrics, window = run.metrics, document["window"]
    trained = metrics.get("train_num_videos")
    lines = [
        f"**Other animals, places and cameras were not tested.** All numbers are of clips of `{dataset}`. Expect lower "
        "ones for other species, sites, views, light or frame rates, and evaluate the model on your own labelled clips "
        "before you rely on it."
    ]
    if not run.sources:
        lines.append(
            "It is not known which clips come from the same recording, animal or site. If some of these are in "
            "training and evaluation, the numbers are too high for new ones."
        )
    elif run.shared_sources:
        lines.append(
            f"{run.shared_sources} sources of evaluated clips also have clips for training or selection, so the "
            "numbers are too high for new sources."
        )
    else:
        lines.append("No known source of an evaluated clip has clips for training or selection.")
    if run.sources and run.clips_without_source:
        lines.append(
            f"The source of {run.clips_without_source} of all clips is not known. If it is one of another split, the "
            "numbers are too high for new sources."
        )
    lines += [
        f"**The metrics are of whole clips.** `predict.py` scores windows of {window['seconds']:g} s. Scores and bouts "
        "of windows were not evaluated, least of all for windows that are much longer or shorter than the clips.",
        "Scores are of the listed actions only. Other behaviour may get a high score for an action that looks similar.",
        f"Scores, thresholds and average precisions of actions with fewer than {FEW_POSITIVES} clips (`*`) are not "
        "reliable.",
    ]
    if document["flow"]:
        lines.append(
            "Motion is that between neighbouring sampled frames. In videos of which another number of frames per "
            "second is sampled, the same movement looks faster or slower."
        )
    if trained is not None:
        lines.append(
            f"The model was trained on {trained:,} clips. It can't have learned what they do not show. Differences "
            "that are smaller than the intervals are not shown by the evaluated clips."
        )
    return "## Limits\n" + "\n".join(f"- {line}" for line in lines)


def _mark_few(count: int | None) -> str:
    return MISSING if count is None else f"{count:,}{'*' if count < FEW_POSITIVES else ''}"


def _join(sentences: Iterable[str]) -> str:
    return " ".join(filter(None, sentences))
