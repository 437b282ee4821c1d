"""Rules for which RGB embeddings, flow videos and motion embeddings belong together. Does not import torch."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vimoclip.annotations import stem as stem_of
from vimoclip.annotations.split_checks import UNLABELLED_HINT
from vimoclip.annotations.split_protocol import HELD_OUT, MONITOR_SPLIT
from vimoclip.cli import check_settings_match
from vimoclip.errors import UserError
from vimoclip.io.names import list_some, normalize_name
from vimoclip.store import EmbeddingReader
from vimoclip.video import VideoInfo, frame_indices_from_comment, recorded_geometry

PREPROCESSING_ATTRIBUTES = ("mean", "std", "interpolation", "resize_mode", "fill_color")  # of an encoder's images
# root attributes of the encoder and of the frames, which must agree if both files have them
ENCODER_ATTRIBUTES = ("clip_model", "quick_gelu", "weights_sha256", "resize", *PREPROCESSING_ATTRIBUTES)
FRAME_ATTRIBUTES = ("sampling", "geometry")


def flow_mismatch(num_frames: int, frame_indices: np.ndarray | None, info: VideoInfo) -> str | None:
    """Return why a flow video does not belong to embedded frames, or None if it does.

    `frame_indices`: of the embedded frames, None if unknown."""
    if info.frames and info.frames != num_frames - 1:
        return f"has {num_frames} RGB frames but {info.frames} flow frames, not {num_frames - 1}"
    flow_indices = frame_indices_from_comment(info.comment)
    if flow_indices is not None and frame_indices is not None and not np.array_equal(flow_indices, frame_indices):
        return "its flow is of other frames than its embeddings (was the video replaced?)"
    return None


def motion_mismatch(
    num_frames: int,
    frame_indices: np.ndarray | None,
    num_motions: int,
    motion_indices: np.ndarray | None,
    motion_path: Path,
) -> str | None:
    """Return why motion embeddings do not belong to embedded frames, or None if they do.

    `frame_indices`, `motion_indices`: None if unknown."""
    if num_motions != num_frames - 1:
        return f"{num_frames} RGB frames need {num_frames - 1} motions, but there are {num_motions}"
    if frame_indices is None or motion_indices is None or np.array_equal(frame_indices[:-1], motion_indices):
        return None
    return f"its motions are of other frames in {motion_path} (was the video replaced?)"


def motion_key_function(motion: EmbeddingReader) -> Callable[[str], str]:
    """Return the function from a video id to its key in a motion file.

    The key is the stem; in a published file it may also be the text before the first dot."""
    keys = set(motion.keys)
    keys_by_name = {normalize_name(key): key for key in motion.keys}

    def motion_key(video: str) -> str:
        key = stem_of(video) or video
        if key not in keys:
            key = keys_by_name.get(normalize_name(key), key)
        return key if motion.has_schema or key in keys else video.partition(".")[0]

    return motion_key


def check_sampling(rgb: EmbeddingReader, flow_settings: Mapping[str, Any], flow_name: str) -> None:
    """Raise UserError if flow was computed from other frames than those embedded."""
    if rgb.has_schema:
        rgb_settings = {"sampling": rgb.attributes.get("sampling"), "geometry": recorded_geometry(rgb.attributes)}
        hint = "give both extractors the same flags"
        check_settings_match(rgb_settings, flow_settings, str(rgb.path), flow_name, hint)


def check_rgb_motion(rgb: EmbeddingReader, motion: EmbeddingReader) -> None:
    """Raise UserError if the width, the encoder or the sampling of RGB and motion embeddings differ."""
    if rgb.dim != motion.dim:
        problem = f"embeddings have width {rgb.dim} in {rgb.path} but {motion.dim} in {motion.path}"
        raise UserError(problem, "create both with the same CLIP model")
    if not (rgb.has_schema and motion.has_schema):
        return
    teacher = motion.attributes.get("student", {}).get("teacher", {})
    rgb_name, motion_name = str(rgb.path), str(motion.path)
    hint = "use the same CLIP model for extract_embeddings.py, train.py and inference.py"
    encoder = recorded_attributes(rgb.attributes, "clip_model", "quick_gelu", "weights_sha256")
    check_settings_match(encoder, teacher, rgb_name, f"the teacher of {motion_name}", hint)
    preprocessing = recorded_attributes(rgb.attributes, "resize", *PREPROCESSING_ATTRIBUTES)
    check_settings_match(preprocessing, _complete_attributes(motion.attributes), rgb_name, motion_name, hint)
    hint = "give both extractors the same --stride, --fps, --max-frames and --deinterlace"
    frames = recorded_attributes(rgb.attributes, "sampling", "geometry")
    check_settings_match(frames, _complete_attributes(motion.attributes), rgb_name, motion_name, hint)


def check_train_val(train: EmbeddingReader, val: EmbeddingReader) -> None:
    """Raise UserError if two RGB files can't be splits of one data set, or share a video."""
    train_name, val_name = str(train.path), str(val.path)
    if train.dim != val.dim:
        problem = f"embeddings have width {train.dim} in {train_name} but {val.dim} in {val_name}"
        raise UserError(problem, "create both again with the same settings")
    check_encoder(train.attributes, val.attributes, train_name, val_name)
    check_classes(class_names(train), class_names(val), train_name, val_name)
    if shared := {stem_of(video) for video in train.keys} & {stem_of(video) for video in val.keys}:
        problem = f"{min(shared)} is in {train_name} and in {val_name}"
        raise UserError(problem, "a video belongs in one split: fix the annotations")


def check_encoder(
    first: Mapping[str, Any],
    second: Mapping[str, Any],
    first_name: str,
    second_name: str,
    keys: Sequence[str] = ENCODER_ATTRIBUTES + FRAME_ATTRIBUTES,
    hint: str = "create both with the same settings, or give other files",
) -> None:
    """Raise UserError if the root attributes of two files name different encoders or sampling.

    Only files with a schema are compared: published files say ViT-B/16 for every encoder. `keys`: those compared."""
    if not ("schema" in first and "schema" in second):
        return
    attributes = recorded_attributes(first, *keys)
    check_settings_match(attributes, _complete_attributes(second), first_name, second_name, hint)


def check_classes(first: Sequence[str], second: Sequence[str], first_name: str, second_name: str) -> None:
    """Raise UserError that names the first class in which two files differ."""
    hint = "use files of one data set"
    first_size, second_size = ({"number of classes": len(names)} for names in (first, second))
    check_settings_match(first_size, second_size, first_name, second_name, hint)
    pairs = zip(map(normalize_name, first), map(normalize_name, second), strict=True)
    for class_id, (first_class, second_class) in enumerate(pairs):
        if default_class_name(class_id) not in (first_class, second_class):
            key = f"class {class_id}"
            check_settings_match({key: first_class}, {key: second_class}, first_name, second_name, hint)


def class_names(rgb: EmbeddingReader) -> list[str]:
    """Return the class names of an RGB file; for a published file, which has none, class_0, class_1, ..."""
    num_classes = len(rgb.labels(rgb.keys[0]))
    names = rgb.attributes.get("class_names") or [default_class_name(class_id) for class_id in range(num_classes)]
    if len(names) != num_classes:
        problem = f"has {len(names)} class names, but labels of {num_classes} classes"
        raise UserError(problem, "create the file again", path=rgb.path)
    return names


def check_labels(videos: Mapping[str, tuple[EmbeddingReader, Sequence[str]]], needs_monitor_label: bool) -> None:
    """Print a warning that names the classes without a video to train on, or to select an epoch on.

    `videos`: train and the monitor split -> RGB file and the videos of it. Raises UserError if no video of the monitor
    split has a label and `needs_monitor_label` is set."""
    for split, (rgb, keys) in videos.items():
        num_videos = np.sum([rgb.labels(key) > 0 for key in keys], axis=0)
        use = "video to train on" if split == "train" else f"{split} video to select an epoch on"
        if split != "train" and not num_videos.any():
            hint = UNLABELLED_HINT if split == MONITOR_SPLIT[HELD_OUT] else f"label videos of {split}"
            problem = f"no {split} video of it has a label, so no epoch can be selected on them"
            if needs_monitor_label:
                raise UserError(problem, hint, path=rgb.path)
            print(f"warning: {rgb.path}: {problem} by TFAM; {hint}", flush=True)
        elif missing := [name for name, count in zip(class_names(rgb), num_videos, strict=True) if not count]:
            count = f"{len(missing)} of {len(num_videos)} classes have no {use}"
            print(f"warning: {rgb.path}: {count} ({list_some(missing)})", flush=True)


def default_class_name(class_id: int) -> str:
    return f"class_{class_id}"


def recorded_attributes(attributes: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    """Return those of the `keys` that the root attributes of a file record."""
    attributes = _complete_attributes(attributes)
    return {key: attributes[key] for key in keys if key in attributes}


def _complete_attributes(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes with their geometry, also those of an earlier version, unless the frames are unknown.

    Those of motion embeddings with the preprocessing of the student's images."""
    student = attributes.get("student")
    encoder = student.get("clip") if isinstance(student, Mapping) else None
    encoder = encoder if isinstance(encoder, Mapping) else {}
    preprocessing = {key: encoder[key] for key in PREPROCESSING_ATTRIBUTES if key in encoder}
    geometry = {"geometry": recorded_geometry(attributes)} if "sampling" in attributes else {}
    return preprocessing | dict(attributes) | geometry
