"""What belongs together: which flow is a video's, and the rules by which RGB, flow and motion fit. Without torch."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vimoclip.annotations import stem as stem_of
from vimoclip.cli import check_same
from vimoclip.errors import UserError
from vimoclip.store import Reader
from vimoclip.video import Info, described_indices

ORIGIN = (
    "clip_model",
    "quick_gelu",
    "weights_sha256",
    "resize",
    "sampling",
)  # root attributes that must agree wherever both files have them


def flow_misfit(frames: int, embedded: np.ndarray | None, info: Info) -> str | None:
    """Why a flow video isn't of these embedded frames; None where it fits. `embedded`: their indices, if known."""
    if info.frames and info.frames != frames - 1:
        return f"has {frames} RGB frames but {info.frames} flow frames, not {frames - 1}"
    kept = described_indices(info.comment)
    if kept is not None and embedded is not None and not np.array_equal(kept, embedded):
        return "its flow is of other frames than its embeddings (was the video replaced?)"
    return None


def motion_misfit(
    frames: int, embedded: np.ndarray | None, motions: int, shown: np.ndarray | None, where: Path
) -> str | None:
    """Why motions aren't of these embedded frames; None where they fit. `embedded`, `shown`: indices, if known."""
    if motions != frames - 1:
        return f"{frames} RGB frames need {frames - 1} motions, but there are {motions}"
    if embedded is not None and shown is not None and not np.array_equal(embedded[:-1], shown):
        return f"its motions are of other frames in {where}: was the video replaced?"
    return None


def motion_names(motion: Reader) -> Callable[[str], str]:
    """Video id -> its key among the motions: the stem; in a published file also what stands before the first dot."""
    there = set(motion.keys)

    def name(video: str) -> str:
        key = stem_of(video) or video
        return key if motion.known or key in there else video.partition(".")[0]

    return name


def check_sampling(rgb: Reader, flow: Mapping[str, Any], flow_name: str) -> None:
    """Raise UserError where flow was made of other frames than were embedded. `flow`: its settings."""
    if rgb.known:
        ours = {"sampling": rgb.attributes.get("sampling")}
        check_same(ours, flow, str(rgb.path), flow_name, "give both extractors the same flags")


def check_fit(rgb: Reader, motion: Reader) -> None:
    """Raise UserError where motions can't be of these videos: another width, backbone or choice of frames."""
    if rgb.dim != motion.dim:
        raise UserError(
            f"embeddings are {rgb.dim} wide in {rgb.path} but {motion.dim} in {motion.path}",
            "make both with the same CLIP model",
        )
    if not (rgb.known and motion.known):
        return
    teacher = motion.attributes.get("student", {}).get("teacher", {})
    ours, theirs = str(rgb.path), str(motion.path)
    cure = "make both with the same CLIP model: extract_embeddings.py, then train.py and inference.py"
    for key in ("clip_model", "quick_gelu", "weights_sha256"):
        check_same(_some(rgb.attributes, key), teacher, ours, f"the teacher of {theirs}", cure)
    check_same(_some(rgb.attributes, "resize"), motion.attributes, ours, theirs, cure)
    cure = "give both extractors the same --stride, --fps and --max-frames"
    check_same(_some(rgb.attributes, "sampling"), motion.attributes, ours, theirs, cure)


def check_splits(train: Reader, val: Reader) -> None:
    """Raise UserError where two RGB files can't be splits of one data set made in one way, or share a video."""
    ours, theirs = str(train.path), str(val.path)
    if train.dim != val.dim:
        raise UserError(f"embeddings are {train.dim} wide in {ours} but {val.dim} in {theirs}", "make both anew alike")
    check_origin(train.attributes, val.attributes, ours, theirs)
    check_classes(class_names(train), class_names(val), ours, theirs)
    if shared := {stem_of(video) for video in train.keys} & {stem_of(video) for video in val.keys}:
        raise UserError(f"{min(shared)} is in {ours} and in {theirs}", "a video belongs in one split: mend annotations")


def check_origin(ours: Mapping[str, Any], theirs: Mapping[str, Any], our_name: str, their_name: str) -> None:
    """Raise UserError where root attributes of two files name another encoder or choice of frames.

    A published file says ViT-B/16 whatever is inside, so only files with a schema are compared."""
    if not ("schema" in ours and "schema" in theirs):
        return
    for key in ORIGIN:
        cure = "make both in the same way, or name others with --set data.<file>=..."
        check_same(_some(ours, key), theirs, our_name, their_name, cure)


def check_classes(ours: Sequence[str], theirs: Sequence[str], our_name: str, their_name: str) -> None:
    """Raise UserError that names the first class in which two files differ."""
    cure = "use files of one data set"
    check_same({"number of classes": len(ours)}, {"number of classes": len(theirs)}, our_name, their_name, cure)
    for number, (our_class, their_class) in enumerate(zip(ours, theirs, strict=True)):
        if unnamed(number) not in (our_class, their_class):
            name = f"class {number}"
            check_same({name: our_class}, {name: their_class}, our_name, their_name, cure)


def class_names(rgb: Reader) -> list[str]:
    """What the file says; a published one only has a number of classes, which come out as class_0, class_1, ..."""
    width = len(rgb.labels(rgb.keys[0]))
    names = rgb.attributes.get("class_names") or [unnamed(number) for number in range(width)]
    if len(names) != width:
        raise UserError(f"names {len(names)} classes, but its labels have {width}", "make it anew", path=rgb.path)
    return names


def unnamed(number: int) -> str:
    return f"class_{number}"


def _some(attributes: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {key: attributes[key]} if key in attributes else {}
