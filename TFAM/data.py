"""Videos as pairs of RGB and motion embeddings: who has both, whether they fit, batches of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils.data import Dataset

from vimoclip.annotations.split_protocol import HELD_OUT, THREE_SPLITS, WATCHED, check_names, divide
from vimoclip.check.compatibility import check_fit, check_splits, motion_misfit, motion_names
from vimoclip.errors import UserError
from vimoclip.runtime import seeding
from vimoclip.store import Reader
from vimoclip.training import run_folder

NAMED = 10  # videos left out that are named on the terminal; those of the splits all stand in metrics.json


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
        self.shuffled = self.still = False

    def __len__(self) -> int:
        return len(self.keys)

    def shuffle_motion(self, seed: int, others: Sequence[str] = ()) -> None:
        """Give each video the motion of another one, always the same. Raises UserError where there is no other.

        `others`: motions of other splits, of which a single video takes one."""
        self.shuffled = True
        if len(self) == 1 and (lent := [key for key in others if key != self.keys[0][1]]):
            self.keys = [(self.keys[0][0], lent[0])]
            return
        if len(self) < 2:
            raise UserError("data.motion is shuffled, which needs two videos or more", path=self.rgb.path)
        order = seeding.epoch_order(len(self), seed, 0)
        givers = dict(zip(order, order[1:] + order[:1], strict=True))  # along one ring, so that none gets its own
        self.keys = [(video, self.keys[givers[i]][1]) for i, (video, _) in enumerate(self.keys)]

    def hide_motion(self) -> None:
        """Zeros in its place, as many."""
        self.still = True

    def __getitem__(self, index: int) -> Item:
        video, motion_key = self.keys[index]
        rgb, labels = torch.from_numpy(self.rgb.embeddings(video)), torch.from_numpy(self.rgb.labels(video))
        if self.motion is None:
            return Item(video, rgb, None, labels)
        if self.still:
            return Item(video, rgb, torch.zeros(len(rgb) - 1, rgb.shape[1]), labels)
        motion = torch.from_numpy(self.motion.embeddings(motion_key))
        if self.shuffled:  # another video's: repeated, or cut, to this one's length
            motion = motion[torch.arange(len(rgb) - 1) % len(motion)]
        return Item(video, rgb, motion, labels)


def collate(items: Sequence[Item]) -> Batch:
    """Of no items, as one of several processes may have in a last step, a batch of no videos."""
    if not items:
        return Batch([], torch.empty(0, 0, 0), torch.empty(0), None, None, torch.empty(0, 0))
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
    rgb_paths: Mapping[str, Path], motion_path: Path, fusion: str, limit: int | None, notes: Path | None = None
) -> tuple[dict[str, Pairs], Reader | None]:
    """Pair each split's RGB file with the motion file, say what is left out, and check that all of them fit.

    Also gives the reader of the motion file, None where the variant does without. `notes`: annotations, whose selection
    clips leave `train` and are the split `selection`. Raises UserError."""
    readers, motion = _open(rgb_paths, motion_path, fusion)
    if len(readers) == 2:
        check_splits(*readers.values())
    if motion:
        for reader in readers.values():
            check_fit(reader, motion)
    chosen = {split: (reader, reader.keys) for split, reader in readers.items()}
    if notes:
        train = readers["train"]
        check_names(train.keys, notes, train.path)
        learnt, held_out = divide(train.keys, notes, train.path)
        chosen |= {"train": (train, learnt), WATCHED[HELD_OUT]: (train, held_out)}
    pairs = {split: pair(reader, motion, fusion, limit, videos) for split, (reader, videos) in chosen.items()}
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


def _open(rgb_paths: Mapping[str, Path], motion_path: Path, fusion: str) -> tuple[dict[str, Reader], Reader | None]:
    """Readers of all files; none of them is empty."""
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
            raise UserError("holds no videos", "run the stage that writes it again", path=reader.path)
        if not reader.known:
            print(f"{reader.path}: doesn't say what made it, so nothing could be checked but widths and lengths")
    return readers, motion


def open_training(config: Mapping[str, Any]) -> tuple[dict[str, Pairs], Reader | None]:
    """The splits that a run sees while it learns, by its protocol, and the reader of its motions. Raises UserError.

    held_out: train and selection, both of the training file; published and three_splits: train and val."""
    data, fusion = config["data"], config["model"]["fusion"]
    paths = {"train": Path(data["rgb_train_h5"]), "val": Path(data["rgb_val_h5"])}
    notes = None
    if data["protocol"] == HELD_OUT:
        del paths["val"]
        notes = Path(data["annotations_dir"])
    splits, motion = open_splits(paths, Path(data["motion_h5"]), fusion, data["limit"], notes)
    control_motion(splits, config)
    return splits, motion


def open_reported(config: Mapping[str, Any], train: Reader | None = None) -> tuple[Pairs, Reader | None]:
    """The reported clips, and the reader of their motions; `train`: the file that they must fit. Raises UserError."""
    data = config["data"]
    paths = {"val": reported_file(data)}
    splits, motion = open_splits(paths, Path(data["motion_h5"]), config["model"]["fusion"], data["limit"])
    if train:
        check_splits(train, splits["val"].rgb)
    control_motion(splits, config)
    return splits["val"], motion


def reported_file(data: Mapping[str, Any]) -> Path:
    """The RGB embeddings of the clips that are reported; `data`: of TFAM's config."""
    return Path(data["rgb_test_h5" if data["protocol"] == THREE_SPLITS else "rgb_val_h5"])


def selection_digest(train: Reader, data: Mapping[str, Any]) -> str:
    """A hash of the selection clips of a training file, as a student's config has it; `data`: of TFAM's config."""
    return run_folder.digest(divide(train.keys, Path(data["annotations_dir"]), train.path)[1])


def control_motion(splits: Mapping[str, Pairs], config: Mapping[str, Any]) -> None:
    """Where the config asks for a control, hide the motion, or give each video another one's. Raises UserError."""
    motions = [key for videos in splits.values() for _, key in videos.keys]
    for videos in splits.values():
        if config["data"]["motion"] == "none":
            videos.hide_motion()
        elif config["data"]["motion"] == "shuffled":
            videos.shuffle_motion(config["training"]["seed"], motions)


def pair(
    rgb: Reader, motion: Reader | None, fusion: str, limit: int | None = None, videos: Sequence[str] | None = None
) -> Pairs:
    """The videos that both files have with fitting lengths, in the RGB file's order. Raises UserError if none.

    `videos`: of which to choose; None: all. With fusion rgb the motions decide which there are, and aren't read."""
    videos = rgb.keys if videos is None else videos
    if motion is None:
        return Pairs(rgb, None, [(video, "") for video in videos[:limit]], {})
    names, there = motion_names(motion), set(motion.keys)
    keys: dict[str, str] = {}  # motion -> video
    left_out: dict[str, str] = {}
    for video in videos:
        if len(keys) == limit:
            break
        key, frames = names(video), rgb.length(video)
        if key in keys:
            raise UserError(
                f"{keys[key]} and {video} would share the motions {key}", "rename one of them", path=rgb.path
            )
        if key not in there:
            left_out[video] = "has one frame, so no motion" if frames == 1 else f"isn't in {motion.path}"
            continue
        embedded, shown = rgb.frame_indices(video), motion.frame_indices(key)
        if problem := motion_misfit(frames, embedded, motion.length(key), shown, motion.path):
            left_out[video] = problem
        else:
            keys[key] = video
    if not keys:
        video, reason = next(iter(left_out.items()))
        raise UserError(
            f"no video has fitting motions in {motion.path} ({video}: {reason})", "make it anew", path=rgb.path
        )
    return Pairs(rgb, None if fusion == "rgb" else motion, [(video, key) for key, video in keys.items()], left_out)


def report(what: str, left_out: Mapping[str, str]) -> None:
    """Print a line on a file and one on each of the first videos that aren't used."""
    print(what + (f", {len(left_out)} left out" if left_out else ""), flush=True)
    for video, reason in list(left_out.items())[:NAMED]:
        print(f"  left out: {video}: {reason}")
    if len(left_out) > NAMED:
        print(f"  and {len(left_out) - NAMED} more")
