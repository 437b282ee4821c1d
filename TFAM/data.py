"""Videos as pairs of RGB and motion embeddings: who has both, whether they fit, batches of them."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from vimoclip import UserError, runs
from vimoclip.annotations import stem
from vimoclip.cli import check_same
from vimoclip.store import Reader

NAMED = 10  # videos left out that are named on the terminal; those of the splits all stand in metrics.json
ORIGIN = (
    "clip_model",
    "quick_gelu",
    "weights_sha256",
    "resize",
    "sampling",
)  # root attributes that must agree wherever both files have them


class Item(NamedTuple):
    video: str
    rgb: torch.Tensor  # (T, D)
    motion: torch.Tensor | None  # (T-1, D)
    labels: torch.Tensor  # (C,)


class Batch(NamedTuple):
    videos: list[str]
    rgb: torch.Tensor  # (B, T, D), zeros beyond each length
    rgb_lengths: torch.Tensor  # (B,)
    motion: torch.Tensor | None  # (B, T-1, D)
    motion_lengths: torch.Tensor | None  # (B,)
    labels: torch.Tensor  # (B, C)

    def inputs(self, device: torch.device) -> list[torch.Tensor | None]:
        """The model's arguments on its device."""
        tensors = (self.rgb, self.rgb_lengths, self.motion, self.motion_lengths)
        return [None if tensor is None else tensor.to(device) for tensor in tensors]


class Pairs(Dataset):
    """Videos of one split, each with its motion where the variant uses motion. Safe in DataLoader's workers."""

    def __init__(self, rgb: Reader, motion: Reader | None, keys: Sequence[tuple[str, str]], left_out: dict[str, str]):
        self.rgb, self.motion, self.keys = rgb, motion, list(keys)
        self.left_out = left_out  # video -> reason
        self.shuffled = False

    def __len__(self) -> int:
        return len(self.keys)

    def shuffle_motion(self, seed: int) -> None:
        """Give each video the motion of another one, always the same. Raises UserError where there is no other."""
        if len(self) < 2:
            raise UserError(f"{self.rgb.path}: data.motion is shuffled, which needs two videos or more")
        order = runs.epoch_order(len(self), seed, 0)
        givers = dict(zip(order, order[1:] + order[:1], strict=True))  # along one ring, so that none gets its own
        self.keys = [(video, self.keys[givers[i]][1]) for i, (video, _) in enumerate(self.keys)]
        self.shuffled = True

    def __getitem__(self, index: int) -> Item:
        video, motion_key = self.keys[index]
        motion = None if self.motion is None else torch.from_numpy(self.motion.embeddings(motion_key))
        if motion is not None and self.shuffled:  # another video's: repeated, or cut, to this one's length
            motion = motion[torch.arange(self.rgb.length(video) - 1) % len(motion)]
        return Item(
            video, torch.from_numpy(self.rgb.embeddings(video)), motion, torch.from_numpy(self.rgb.labels(video))
        )


def collate(items: Sequence[Item]) -> Batch:
    pad = torch.nn.utils.rnn.pad_sequence
    motions = [item.motion for item in items if item.motion is not None]
    return Batch(
        [item.video for item in items],
        pad([item.rgb for item in items], batch_first=True),
        torch.tensor([len(item.rgb) for item in items]),
        pad(motions, batch_first=True) if motions else None,
        torch.tensor([len(motion) for motion in motions]) if motions else None,
        torch.stack([item.labels for item in items]),
    )


def open_splits(
    rgb_paths: Mapping[str, Path], motion_path: Path, fusion: str, limit: int | None
) -> tuple[dict[str, Pairs], Reader | None]:
    """Pair each split's RGB file with the motion file, say what is left out, and check that all of them fit.

    Also gives the reader of the motion file, None where the variant does without. Raises UserError."""
    readers = {split: Reader(path, "rgb") for split, path in rgb_paths.items()}
    motion = None
    if fusion != "rgb" or motion_path.is_file():
        motion = Reader(motion_path, "motion")
    else:
        print(
            f"{motion_path}: there is no such file, so all RGB videos are used; other rows of the table may see fewer"
        )
    for reader in [*readers.values(), *([motion] if motion else [])]:
        if not reader.keys:
            raise UserError(f"{reader.path}: holds no videos; run the stage that writes it again")
        if not reader.known:
            print(f"{reader.path}: doesn't say what made it, so nothing could be checked but widths and lengths")
    if len(readers) == 2:
        check_splits(*readers.values())
    if motion:
        for reader in readers.values():
            check_fit(reader, motion)
    pairs = {split: pair(reader, motion, fusion, limit) for split, reader in readers.items()}
    for split, videos in pairs.items():
        report(f"{videos.rgb.path}: {len(videos)} {split} videos", videos.left_out)
    if motion and len(readers) == 2:  # one split alone can't tell
        names = motion_names(motion)
        used = {names(video) for reader in readers.values() for video in reader.keys}
        report(
            f"{motion.path}: {len(motion.keys)} videos",
            dict.fromkeys((key for key in motion.keys if key not in used), "in neither RGB file"),
        )
    return pairs, None if fusion == "rgb" else motion


def control_motion(splits: Mapping[str, Pairs], config: Mapping[str, Any]) -> None:
    """Where the config asks for the control, give each video another one's motion. Raises UserError."""
    if config["data"]["motion"] == "shuffled":
        for videos in splits.values():
            videos.shuffle_motion(config["training"]["seed"])


def pair(rgb: Reader, motion: Reader | None, fusion: str, limit: int | None = None) -> Pairs:
    """The videos that both files have with fitting lengths, in the RGB file's order. Raises UserError if none.

    With fusion rgb the motions decide which videos there are, and aren't read."""
    if motion is None:
        return Pairs(rgb, None, [(video, "") for video in rgb.keys[:limit]], {})
    names, there = motion_names(motion), set(motion.keys)
    keys: dict[str, str] = {}  # motion -> video
    left_out: dict[str, str] = {}
    for video in rgb.keys:
        if len(keys) == limit:
            break
        key, frames = names(video), rgb.length(video)
        if key in keys:
            raise UserError(f"{rgb.path}: {keys[key]} and {video} would share the motions {key}; rename one of them")
        if key not in there:
            left_out[video] = "has one frame, so no motion" if frames == 1 else f"isn't in {motion.path}"
        elif (motions := motion.length(key)) != frames - 1:
            left_out[video] = f"{frames} RGB frames need {frames - 1} motions, but there are {motions}"
        elif not _same_frames(rgb.frame_indices(video), motion.frame_indices(key)):
            left_out[video] = f"its motions are of other frames in {motion.path}: was the video replaced?"
        else:
            keys[key] = video
    if not keys:
        video, reason = next(iter(left_out.items()))
        raise UserError(f"{rgb.path}: no video has fitting motions in {motion.path} ({video}: {reason}); make it anew")
    return Pairs(rgb, None if fusion == "rgb" else motion, [(video, key) for key, video in keys.items()], left_out)


def _same_frames(rgb: np.ndarray | None, motion: np.ndarray | None) -> bool:
    return rgb is None or motion is None or np.array_equal(rgb[:-1], motion)


def motion_names(motion: Reader) -> Callable[[str], str]:
    """Video id -> its key among the motions: the stem; in a published file also what stands before the first dot."""
    there = set(motion.keys)

    def name(video: str) -> str:
        key = stem(video) or video
        return key if motion.known or key in there else video.partition(".")[0]

    return name


def check_fit(rgb: Reader, motion: Reader) -> None:
    """Raise UserError where motions can't be of these videos: another width, backbone or choice of frames."""
    if rgb.dim != motion.dim:
        raise UserError(
            f"embeddings are {rgb.dim} wide in {rgb.path} but {motion.dim} in {motion.path}; "
            "make both with the same CLIP model"
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
        raise UserError(f"embeddings are {train.dim} wide in {ours} but {val.dim} in {theirs}; make both anew alike")
    check_origin(train.attributes, val.attributes, ours, theirs)
    check_classes(class_names(train), class_names(val), ours, theirs)
    if shared := {stem(video) for video in train.keys} & {stem(video) for video in val.keys}:
        raise UserError(f"{min(shared)} is in {ours} and in {theirs}; a video belongs in one split: mend annotations")


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
        raise UserError(f"{rgb.path}: names {len(names)} classes, but its labels have {width}; make it anew")
    return names


def unnamed(number: int) -> str:
    return f"class_{number}"


def report(what: str, left_out: Mapping[str, str]) -> None:
    """Print a line on a file and one on each of the first videos that aren't used."""
    print(what + (f", {len(left_out)} left out" if left_out else ""), flush=True)
    for video, reason in list(left_out.items())[:NAMED]:
        print(f"  left out: {video}: {reason}")
    if len(left_out) > NAMED:
        print(f"  and {len(left_out) - NAMED} more")


def _some(attributes: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {key: attributes[key]} if key in attributes else {}
