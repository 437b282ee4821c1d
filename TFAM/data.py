"""Data set of paired RGB and motion embeddings: opening and checking the files, pairing, batches."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils.data import Dataset

from TFAM.packing import PackedTokens, Pooling, pack, split_by_tokens
from vimoclip.annotations.few_shot import draw_shots
from vimoclip.annotations.split_protocol import (
    HELD_OUT,
    MONITOR_SPLIT,
    THREE_SPLITS,
    check_selection_keys,
    split_train_selection,
)
from vimoclip.check.compatibility import (
    check_labels,
    check_rgb_motion,
    check_train_val,
    motion_key_function,
    motion_mismatch,
)
from vimoclip.errors import UserError
from vimoclip.io.atomic import write_text
from vimoclip.runtime import seeding
from vimoclip.store import EmbeddingReader
from vimoclip.training import run_folder

MAX_NAMED = 10  # excluded videos that are printed per file; metrics.json has all of them


class ClipFeatures(NamedTuple):
    """Embeddings and labels of one video of T frames."""

    video: str
    rgb: torch.Tensor  # (T, D)
    motion: torch.Tensor | None  # (T-1, D)
    labels: torch.Tensor  # (C,)


class FusionBatch(NamedTuple):
    """Packed embeddings of B videos."""

    videos: list[str]
    rgb: PackedTokens
    motion: PackedTokens | None
    labels: torch.Tensor  # (B, C)

    def model_inputs(self, device: torch.device) -> list[PackedTokens | None]:
        """Positional arguments of FusionTransformer.forward, on its device."""
        return [self.rgb.to(device), None if self.motion is None else self.motion.to(device)]

    def parts(self) -> Iterator["FusionBatch"]:
        """Yield the batch in parts of a bounded number of tokens, as memory grows with them. Most batches are one part.

        Videos that were padded stay padded to the longest of the batch, since logits depend on it."""
        motion = self.motion
        lengths = zip(self.rgb.lengths, motion.lengths if motion else [0] * len(self.videos), strict=True)
        for chosen in split_by_tokens([frames + flows for frames, flows in lengths]):
            rgb, flows = self.rgb.select(chosen), motion.select(chosen) if motion else None
            yield FusionBatch(self.videos[chosen], rgb, flows, self.labels[chosen])


class PairedEmbeddings(Dataset):
    """Videos of one split, with their motion if the variant uses motion. Safe in DataLoader workers."""

    def __init__(
        self,
        rgb: EmbeddingReader,
        motion: EmbeddingReader | None,
        keys: Sequence[tuple[str, str]],
        excluded: dict[str, str],
    ):
        self.rgb, self.motion = rgb, motion
        self.keys = list(keys)  # (video, motion key)
        self.excluded = excluded  # video -> reason
        self.motion_mode = "real"  # data.motion of the config: real, none or shuffled
        self.pooling: str = Pooling.MASKED  # model.pooling of the config

    def __len__(self) -> int:
        return len(self.keys)

    def frames(self) -> dict[str, int]:
        """Return the number of frames of each video."""
        return {video: self.rgb.length(video) for video, _ in self.keys}

    def keep_shots(self, shots: int) -> None:
        """Keep the clips of `draw_shots`, in their order."""
        labels = {video: self.rgb.labels(video).nonzero()[0].tolist() for video, _ in self.keys}
        drawn = set(draw_shots(labels, shots))
        print(f"{self.rgb.path}: {len(drawn)} of {len(self)} training videos are drawn, {shots} of each class")
        self.keys = [key for key in self.keys if key[0] in drawn]

    def shuffle_motion(self, seed: int, all_motion_keys: Sequence[str] = ()) -> None:
        """Assign the motion of another video to each video; the seed determines the assignment.

        `all_motion_keys`: of all splits; the only video of a split takes the motion of another split. Raises UserError
        if there is no other motion."""
        if len(self) == 1 and (other_keys := [key for key in all_motion_keys if key != self.keys[0][1]]):
            self.keys = [(self.keys[0][0], other_keys[0])]
            return
        if len(self) < 2:
            raise UserError("data.motion shuffled needs two or more videos", path=self.rgb.path)
        order = seeding.epoch_permutation(len(self), seed, 0)
        # a cyclic shift of a random order leaves no video with its own motion
        source = dict(zip(order, order[1:] + order[:1], strict=True))
        self.keys = [(video, self.keys[source[i]][1]) for i, (video, _) in enumerate(self.keys)]

    def __getitem__(self, index: int) -> ClipFeatures:
        video, motion_key = self.keys[index]
        rgb, labels = torch.from_numpy(self.rgb.embeddings(video)), torch.from_numpy(self.rgb.labels(video))
        if self.motion is None:
            return ClipFeatures(video, rgb, None, labels)
        if self.motion_mode == "none":
            return ClipFeatures(video, rgb, torch.zeros(len(rgb) - 1, rgb.shape[1]), labels)
        motion = torch.from_numpy(self.motion.embeddings(motion_key))
        if self.motion_mode == "shuffled":  # repeat or trim the other video's motion to this video's length
            motion = motion[torch.arange(len(rgb) - 1) % len(motion)]
        return ClipFeatures(video, rgb, motion, labels)

    def collate(self, clips: Sequence[ClipFeatures]) -> FusionBatch:
        return collate(clips, self.pooling)


def collate(clips: Sequence[ClipFeatures], pooling: str = Pooling.MASKED) -> FusionBatch:
    """Pack clips for a model with this pooling. A step of several processes may have none for one: an empty batch."""
    if not clips:
        return FusionBatch([], PackedTokens(torch.empty(0, 0), [], None, []), None, torch.empty(0, 0))
    motions = [clip.motion for clip in clips if clip.motion is not None]
    return FusionBatch(
        [clip.video for clip in clips],
        pack([clip.rgb for clip in clips], pooling),
        pack(motions, pooling) if motions else None,
        torch.stack([clip.labels for clip in clips]),
    )


def open_training_splits(config: Mapping[str, Any]) -> tuple[dict[str, PairedEmbeddings], EmbeddingReader | None]:
    """Open and check the files that are read during training; print the excluded videos.

    held_out: splits train and selection, both of the training file; published and three_splits: train and val.
    Returns (data sets by split, reader of the motion file or None if the variant has no motion). Raises UserError."""
    data = config["data"]
    paths = {"train": Path(data["rgb_train_h5"])}
    if data["protocol"] != HELD_OUT:
        paths["val"] = Path(data["rgb_val_h5"])
    splits, motion = _open_splits(paths, config)
    check_labels(
        {split: (dataset.rgb, [video for video, _ in dataset.keys]) for split, dataset in splits.items()}, True
    )
    return splits, motion


def open_evaluation_split(
    config: Mapping[str, Any], train: EmbeddingReader | None = None
) -> tuple[PairedEmbeddings, EmbeddingReader | None]:
    """Open the evaluation split and the motion file. Raises UserError if they do not fit each other or `train`."""
    splits, motion = _open_splits({"val": evaluation_file(config["data"])}, config)
    if train:
        check_train_val(train, splits["val"].rgb)
    return splits["val"], motion


def evaluation_file(data: Mapping[str, Any]) -> Path:
    """Return the RGB file of the evaluation split; `data`: section of the config."""
    return Path(data["rgb_test_h5" if data["protocol"] == THREE_SPLITS else "rgb_val_h5"])


def selection_digest(train: EmbeddingReader, data: Mapping[str, Any]) -> str:
    """Return the hash of the model-selection split, as in a student's config; `data`: section of the config."""
    return run_folder.digest(split_train_selection(train.keys, Path(data["annotations_dir"]), train.path)[1])


def _open_splits(
    rgb_paths: Mapping[str, Path], config: Mapping[str, Any]
) -> tuple[dict[str, PairedEmbeddings], EmbeddingReader | None]:
    data, fusion = config["data"], config["model"]["fusion"]
    readers, motion = _open_readers(rgb_paths, Path(data["motion_h5"]), fusion)
    if len(readers) == 2:
        check_train_val(*readers.values())
    if motion:
        for reader in readers.values():
            check_rgb_motion(reader, motion)
    split_videos = {split: (reader, reader.keys) for split, reader in readers.items()}
    if data["protocol"] == HELD_OUT and (train := readers.get("train")):
        annotations_dir = Path(data["annotations_dir"])
        check_selection_keys(train.keys, annotations_dir, train.path)
        train_keys, selection_keys = split_train_selection(train.keys, annotations_dir, train.path)
        split_videos = {"train": (train, train_keys), MONITOR_SPLIT[HELD_OUT]: (train, selection_keys)}
    datasets = {
        split: pair_embeddings(reader, motion, fusion, data["limit"], videos)
        for split, (reader, videos) in split_videos.items()
    }
    if data["shots"] and "train" in datasets:
        datasets["train"].keep_shots(data["shots"])
    for split, dataset in datasets.items():
        print_excluded(f"{dataset.rgb.path}: {len(dataset)} {split} videos", dataset.excluded)
    if motion and len(readers) == 2:  # with one RGB file, unused motions may belong to the other
        motion_key = motion_key_function(motion)
        used = {motion_key(video) for reader in readers.values() for video in reader.keys}
        print_excluded(
            f"{motion.path}: {len(motion.keys)} videos",
            dict.fromkeys((key for key in motion.keys if key not in used), "in neither RGB file"),
        )
    apply_config(datasets, config)
    return datasets, None if fusion == "rgb" else motion


def _open_readers(
    rgb_paths: Mapping[str, Path], motion_path: Path, fusion: str
) -> tuple[dict[str, EmbeddingReader], EmbeddingReader | None]:
    """Open all files; raise UserError if one holds no videos."""
    readers = {split: EmbeddingReader(path, "rgb") for split, path in rgb_paths.items()}
    motion = None
    if fusion != "rgb" or motion_path.is_file():
        motion = EmbeddingReader(motion_path, "motion")
    else:
        print(f"{motion_path}: there is no such file, so all RGB videos are used, also those without motion")
    for reader in [*readers.values(), *([motion] if motion else [])]:
        if not reader.keys:
            raise UserError(
                "has no videos", "create the file again with extract_embeddings.py or inference.py", path=reader.path
            )
        if not reader.has_schema:
            print(f"{reader.path}: has no metadata, so only widths and lengths are checked")
    return readers, motion


def apply_config(splits: Mapping[str, PairedEmbeddings], config: Mapping[str, Any]) -> None:
    """Set the pooling of all splits; zero or shuffle their motion according to data.motion. Raises UserError."""
    motion_keys = [key for dataset in splits.values() for _, key in dataset.keys]
    for dataset in splits.values():
        dataset.pooling = config["model"]["pooling"]
        dataset.motion_mode = config["data"]["motion"]
        if dataset.motion_mode == "shuffled":
            dataset.shuffle_motion(config["training"]["seed"], motion_keys)


def pair_embeddings(
    rgb: EmbeddingReader,
    motion: EmbeddingReader | None,
    fusion: str,
    limit: int | None = None,
    videos: Sequence[str] | None = None,
) -> PairedEmbeddings:
    """Pair the videos that both files have with matching lengths, in the RGB file's order.

    `videos`: candidates, by default all. With fusion rgb, a motion file selects the videos but is not read. Raises
    UserError if no video is left or two share a motion key."""
    videos = rgb.keys if videos is None else videos
    if motion is None:
        return PairedEmbeddings(rgb, None, [(video, "") for video in videos[:limit]], {})
    motion_key, motion_keys = motion_key_function(motion), set(motion.keys)
    video_by_key: dict[str, str] = {}
    excluded: dict[str, str] = {}
    for video in videos:
        if len(video_by_key) == limit:
            break
        key, num_frames = motion_key(video), rgb.length(video)
        if key in video_by_key:
            raise UserError(
                f"{video_by_key[key]} and {video} have the same motion key {key}", "rename one of them", path=rgb.path
            )
        if key not in motion_keys:
            excluded[video] = "has one frame, so no motion" if num_frames == 1 else f"is not in {motion.path}"
            continue
        rgb_indices, motion_indices = rgb.frame_indices(video), motion.frame_indices(key)
        if problem := motion_mismatch(num_frames, rgb_indices, motion.length(key), motion_indices, motion.path):
            excluded[video] = problem
        else:
            video_by_key[key] = video
    if not video_by_key:
        video, reason = next(iter(excluded.items()))
        raise UserError(
            f"no video has fitting motion in {motion.path} ({video}: {reason})", "run inference.py again", path=rgb.path
        )
    keys = [(video, key) for key, video in video_by_key.items()]
    return PairedEmbeddings(rgb, None if fusion == "rgb" else motion, keys, excluded)


def write_training_clips(folder: Path, dataset: PairedEmbeddings) -> None:
    """Write training_clips.txt of a few-shot run: the names of its training clips, one a line."""
    write_text(folder / "training_clips.txt", "".join(f"{video}\n" for video, _ in dataset.keys))


def print_excluded(summary: str, excluded: Mapping[str, str]) -> None:
    """Print a summary line and the first MAX_NAMED excluded videos, with reasons."""
    print(summary + (f", {len(excluded)} excluded" if excluded else ""), flush=True)
    for video, reason in list(excluded.items())[:MAX_NAMED]:
        print(f"  excluded: {video}: {reason}")
    if len(excluded) > MAX_NAMED:
        print(f"  and {len(excluded) - MAX_NAMED} more")
