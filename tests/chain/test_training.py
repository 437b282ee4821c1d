"""The whole chain, from videos to a table, through the scripts' main."""

import json
import os
import shutil
from fractions import Fraction
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

import extract_embeddings
import extract_flows
import inference
import train
from tests.chain.helpers import read_csv, shell
from tests.conftest import (
    REPOSITORY,
    SHARED,
    indexed_frames,
    lock_in_subprocess,
    make_tiny_clip,
    moving_frames,
    read_index,
    write_annotations,
    write_video,
)
from TFAM import table, train_and_eval
from vimoclip import moclip, store, video
from vimoclip.errors import TrainingError, UserError

SMALL_TFAM = ["training.epochs=2", "model.num_heads=4", "model.num_layers=1", "model.dim_feedforward=64"]
STUDENT = ["--run-name", "s", "--epochs", "2", "--batch-size", "4", "--sequence-length", "6", "--num-workers", "0"]


def run_chain(clip_name: str, flow: list[str]) -> None:
    extract_embeddings.main(["--clip-model-name", clip_name])
    extract_flows.main(flow)
    train.main([*STUDENT, "--clip-model-name", clip_name])
    inference.main(["--checkpoint-dir", "checkpoints/s"])


@pytest.fixture
def in_dataset(tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tiny_dataset.parent)
    return tiny_dataset


@pytest.fixture(scope="module")
def finished(shared_dataset: Path, tiny_clip: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which `run_chain` has run, which no test changes."""
    root = tmp_path_factory.mktemp("finished")
    shutil.copytree(shared_dataset, root / "dataset")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        run_chain(tiny_clip, ["--model", "dis"])
    return root


@pytest.fixture
def after_chain(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change to a copy of the folder in which the chain has run; return the data set."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "dataset"


def test_from_videos_to_multi_label_ap_through_main(after_chain: Path, tiny_clip: str) -> None:
    embeddings = after_chain / "embeddings"
    with (
        h5py.File(embeddings / "ak_train_clip_embeddings.h5") as rgb,
        h5py.File(embeddings / "flow_embeddings.h5") as motion,
    ):
        assert list(rgb) == [f"train{i}.mp4" for i in range(6)]
        for i, key in enumerate(rgb):
            assert rgb[key]["embeddings"].shape == (12 + i, 32)
            assert motion[key.split(".")[0]]["embeddings"].shape == (11 + i, 32)
            assert rgb[key]["labels"][:].nonzero()[0].tolist() == [i % 3]
            indices, flows = rgb[key]["frame_indices"][:], motion[key.split(".")[0]]["frame_indices"][:]
            assert np.array_equal(indices[:-1], flows)
        assert rgb.attrs["clip_model"] == "local-dir:tinyclip"
        student = json.loads(motion.attrs["student"])
        assert student["teacher"]["weights_sha256"] == rgb.attrs["weights_sha256"] != motion.attrs["weights_sha256"]
        assert student["flow"]["method"] == "dis"
    run = Path("checkpoints/s")
    assert {path.name for path in run.iterdir()} == {
        *("args.yaml", "last.pth", "left_out.csv", "metrics.csv", "student_best.pth"),
        *("student_epoch_1.pth", "student_epoch_2.pth"),
    }
    best = torch.load(run / "student_best.pth", weights_only=True)
    assert set(best) == {"state_dict", "config", "class_names", "epoch", "metrics", "versions"}
    losses = [float(row["val_loss"]) for row in read_csv(run / "metrics.csv")]
    assert best["epoch"] == 1 + losses.index(min(losses))
    for config in ("rgb", "cross_attention"):
        arguments = ["--config", str(REPOSITORY / "TFAM" / "configs" / f"{config}.yaml"), "--set", *SMALL_TFAM]
        folder = train_and_eval.main(arguments)
        metrics = json.loads((folder / "metrics.json").read_text())
        assert metrics["num_videos"] == 4
        assert 0 <= metrics["map_macro"] <= 1
        predictions = read_csv(folder / "predictions.csv")
        assert [row["video_id"] for row in predictions] == [f"val{i}.mp4" for i in range(4)]
    table.main(["--output-dir", "results"])
    rows = read_csv(Path("results/table.csv"))
    assert {row["config"] for row in rows} == {"rgb", "cross_attention"}


def test_tensorboard_has_losses_rates_both_aps_and_the_panel(after_chain: Path, tiny_clip: str, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (empty := tmp_path / "empty").mkdir()
    train.main([*STUDENT, "--clip-model-name", tiny_clip, "--run-name", "no-videos", "--videos-dir", str(empty)])
    events = {}
    for name in ("s", "no-videos"):
        events[name] = EventAccumulator(f"logs/{name}", {"images": 0, "scalars": 0}).Reload()
    scalars = set(events["s"].Tags()["scalars"])
    for what in ("loss", "distillation_loss", "classification_loss"):
        assert {f"step/{what}", f"train/{what}", f"val/{what}"} <= scalars
    assert {"step/learning_rate", "val/head_map_macro", "val/head_map_micro"} <= scalars
    assert len(events["s"].Scalars("val/loss")) == 2
    panels = {name: found.Images("val/rgb_flow_labels") for name, found in events.items()}
    assert len(panels["s"]) == 2
    # without the videos there is only the flow frame
    assert panels["s"][0].encoded_image_string != panels["no-videos"][0].encoded_image_string


def test_row_t_is_frame_t_and_flow_t_is_that_of_t_to_t_plus_1(in_dataset: Path, tiny_clip: str) -> None:
    """The encoder is replaced by nothing here: what reaches it says which frame it is."""
    shutil.rmtree(in_dataset / "videos")
    write_video(in_dataset / "videos" / "train0.mp4", indexed_frames(70))
    write_annotations(in_dataset / "annotations", {"train": {"train0.mp4": (0,)}})
    (in_dataset / "annotations" / "val_multi.txt").unlink()
    extract_embeddings.main(["--clip-model-name", tiny_clip, "--stride", "3", "--frame-batch-size", "5"])
    extract_flows.main(["--model", "frame_diff", "--stride", "3", "--pair-batch-size", "4", "--lossless"])
    reader = store.EmbeddingReader(in_dataset / "embeddings" / "ak_train_clip_embeddings.h5")
    from vimoclip import clip

    encoder = clip.load_encoder(tiny_clip, None)
    expected = encoder.encode(encoder.preprocess(indexed_frames(70)[::3]))
    assert reader.frame_indices("train0.mp4").tolist() == list(range(0, 70, 3))  # type: ignore[union-attr]
    assert np.allclose(reader.embeddings("train0.mp4"), expected.numpy(), atol=1e-5)
    assert np.allclose(reader.timestamps("train0.mp4"), np.arange(0, 70, 3) / 25)  # type: ignore[arg-type]
    flow = next(iter(video.VideoReader(in_dataset / "flows" / "train0.mp4", 100))).frames
    assert len(flow) == 23
    for t, image in enumerate(flow):  # a bit that changed shows white: so the picture is t xor t + 1
        assert read_index(image) == (3 * t) ^ (3 * (t + 1))


def test_a_second_run_of_each_extraction_does_nothing_and_new_videos_are_added(
    in_dataset: Path, tiny_clip: str
) -> None:
    first = extract_embeddings.main(["--clip-model-name", tiny_clip, "--limit", "2"])
    assert (first.done, first.already_done) == (4, 0)
    again = extract_embeddings.main(["--clip-model-name", tiny_clip])
    assert (again.done, again.already_done) == (6, 4)
    output = in_dataset / "embeddings" / "ak_train_clip_embeddings.h5"
    pieced = output.read_bytes()
    output.unlink()
    extract_embeddings.main(["--clip-model-name", tiny_clip, "--split", "train"])
    assert output.read_bytes() == pieced
    assert extract_flows.main(["--model", "dis", "--limit", "3"]).done == 3
    again = extract_flows.main(["--model", "dis"])
    assert (again.done, again.already_done) == (7, 3)


def test_a_bad_video_is_reported_and_one_frame_has_no_flow(in_dataset: Path, tiny_clip: str) -> None:
    (in_dataset / "videos" / "train0.mp4").write_bytes(b"")
    (in_dataset / "videos" / "train1.mp4").unlink()
    write_video(in_dataset / "videos" / "train2.mp4", indexed_frames(1))
    report = extract_embeddings.main(["--clip-model-name", tiny_clip])
    assert sorted(report.failed) == ["train0.mp4", "train1.mp4"]
    assert report.done == 8
    report = extract_flows.main(["--model", "dis"])
    assert set(report.failed) == {"train0.mp4"}
    assert set(report.skipped) == {"train2.mp4"}
    train.main([*STUDENT, "--clip-model-name", tiny_clip])
    assert "train2.mp4" in [row["video"] for row in read_csv(Path("checkpoints/s/left_out.csv"))]
    shutil.rmtree(in_dataset / "videos")
    (in_dataset / "videos").mkdir()
    write_video(in_dataset / "videos" / "train1.mp4", indexed_frames(3))
    assert extract_embeddings.main(["--clip-model-name", tiny_clip]).done == 1  # the others are not lost


def test_a_run_is_not_resumed_with_other_settings_or_labels_or_beside_another_process(
    after_chain: Path, tiny_clip: str
) -> None:
    resume = ["--resume", "checkpoints/s", "--epochs", "3"]
    with pytest.raises(UserError, match=r"batch_size .*args.yaml"):
        train.main([*resume, "--batch-size", "8"])
    with lock_in_subprocess(Path("checkpoints/s")) as pid, pytest.raises(UserError, match=rf"checkpoints/s: .*{pid}"):
        train.main(resume)
    relabel(after_chain / "annotations" / "train_multi.txt")
    extract_embeddings.main(["--clip-model-name", tiny_clip])
    with pytest.raises(UserError, match=r"embeddings.train .*last.pth"):
        train.main(resume)


def relabel(path: Path) -> None:
    first, *others = path.read_text().splitlines()
    path.write_text("\n".join([f"{first.split()[0]} 0 1 2", *others]) + "\n")


def test_a_loss_that_is_not_finite_stops_and_names_the_videos(after_chain: Path, tiny_clip: str) -> None:
    path = after_chain / "embeddings" / "ak_train_clip_embeddings.h5"
    with h5py.File(path, "a") as file:
        file["train3.mp4/embeddings"][2] = np.nan
    arguments = [*STUDENT, "--clip-model-name", tiny_clip, "--run-name", "bad", "--batch-size", "1"]
    with pytest.raises(TrainingError, match=r"\btrain3.mp4"):
        train.main(arguments)


def test_a_loss_that_is_not_finite_in_validation_does_too(after_chain: Path, tiny_clip: str) -> None:
    with h5py.File(after_chain / "embeddings" / "ak_val_clip_embeddings.h5", "a") as file:
        file["val2.mp4/embeddings"][2] = np.nan
    arguments = [*STUDENT, "--clip-model-name", tiny_clip, "--run-name", "bad", "--batch-size", "1"]
    with pytest.raises(TrainingError, match=r"\bval2.mp4"):
        train.main(arguments)


def test_the_best_student_is_that_of_the_lowest_validation_loss_and_patience_ends_the_run(
    after_chain: Path, tiny_clip: str
) -> None:
    arguments = ["--run-name", "hot", "--epochs", "30", "--early-stopping-patience", "2", "--learning-rate", "0.02"]
    folder = train.main([*STUDENT, *arguments, "--clip-model-name", tiny_clip])
    losses = [float(row["val_loss"]) for row in read_csv(folder / "metrics.csv")]
    best = losses.index(min(losses)) + 1
    assert best == len(losses) - 2 < 28  # two epochs without a gain, and then no more
    content = torch.load(folder / "student_best.pth", weights_only=True)
    assert content["epoch"] == best
    same = torch.load(folder / f"student_epoch_{best}.pth", weights_only=True)["state_dict"]
    assert all(torch.equal(same[name], tensor) for name, tensor in content["state_dict"].items())


def test_a_flow_video_that_breaks_while_training_is_left_out_by_name(in_dataset: Path, tiny_clip: str) -> None:
    run_chain(tiny_clip, ["--model", "dis", "--lossless"])
    flow = in_dataset / "flows" / "train1.mp4"
    flow.write_bytes(flow.read_bytes()[: int(flow.stat().st_size * 0.7)])  # its header is whole
    folder = train.main([*STUDENT, "--clip-model-name", tiny_clip, "--run-name", "cut", "--batch-size", "1"])
    assert [row["video"] for row in read_csv(folder / "left_out.csv")] == ["train1.mp4"]
    assert len(read_csv(folder / "metrics.csv")) == 2
    train.main(["--resume", str(folder)])
    assert [row["video"] for row in read_csv(folder / "left_out.csv")] == ["train1.mp4"]


def test_edited_annotations_update_existing_embeddings(in_dataset: Path, tiny_clip: str) -> None:
    extract_embeddings.main(["--clip-model-name", tiny_clip])
    splits = {
        "train": {f"train{i}.mp4": (i % 3,) for i in range(6)},
        "val": {f"val{i}.mp4": (i % 3,) for i in range(4)},
    }
    splits["train"]["train0.mp4"] = (1, 2)  # type: ignore[assignment]
    splits["val"]["train3.mp4"] = splits["train"].pop("train3.mp4")
    write_annotations(in_dataset / "annotations", splits)
    report = extract_embeddings.main(["--clip-model-name", tiny_clip])
    assert (report.done, report.already_done) == (1, 9)
    readers = {s: store.EmbeddingReader(in_dataset / "embeddings" / f"ak_{s}_clip_embeddings.h5") for s in splits}
    assert readers["train"].labels("train0.mp4").tolist() == [0, 1, 1]
    assert {split: set(reader.keys) for split, reader in readers.items()} == {s: set(v) for s, v in splits.items()}


def test_overwrite_removes_nothing_before_all_is_checked(after_chain: Path, tiny_clip: str) -> None:
    before = sorted(path.name for path in Path("checkpoints/s").iterdir())
    train.main([*STUDENT, "--clip-model-name", tiny_clip, "--overwrite", "--dry-run"])
    with pytest.raises(UserError, match=r"nope.h5"):
        train.main([*STUDENT, "--overwrite", "--train-hdf5-path", "nope.h5"])
    with pytest.raises(UserError, match="--run-name"):
        train.main([*STUDENT, "--run-name", "..", "--overwrite"])
    with pytest.raises(UserError, match="--overwrite"):
        train.main(["--resume", "checkpoints/s", "--overwrite"])
    assert sorted(path.name for path in Path("checkpoints/s").iterdir()) == before
    assert after_chain.exists()


def test_a_run_that_stopped_before_its_first_checkpoint_starts_again_with_new_settings(
    after_chain: Path, tiny_clip: str
) -> None:
    (Path("checkpoints/s") / "last.pth").unlink()
    arguments = [*STUDENT, "--clip-model-name", tiny_clip, "--learning-rate", "1e-5"]
    train.main(arguments)
    assert "learning_rate: 1.0e-05" in Path("checkpoints/s/args.yaml").read_text()
    train.main(arguments)


def test_a_run_resumes_only_with_the_data_it_was_trained_on(after_chain: Path, tiny_clip: str) -> None:
    more = ["--resume", "checkpoints/s/", "--epochs", "3", "--dataset-dir", str(after_chain.absolute())]
    train.main(more)  # the paths of the files may be given in another form
    assert len(read_csv(Path("checkpoints/s/metrics.csv"))) == 3
    assert "epochs: 3\n" in Path("checkpoints/s/args.yaml").read_text()
    train.main(["--resume", "checkpoints/s"])  # the number of epochs is remembered
    assert len(read_csv(Path("checkpoints/s/metrics.csv"))) == 3
    extract_flows.main(["--model", "frame_diff", "--overwrite"])
    with pytest.raises(UserError, match=r"flow\..*last.pth"):
        train.main(["--resume", "checkpoints/s", "--epochs", "4"])


def test_motion_of_published_flow_videos_reaches_tfam(after_chain: Path, tiny_clip: str) -> None:
    for path in list((after_chain / "flows").iterdir()):  # the published script's name, and no comment
        frames = next(iter(video.VideoReader(path, 100))).frames
        path.unlink()
        write_video(path.with_name(f"{path.stem}_raft_things.mp4"), frames)
    train.main([*STUDENT, "--clip-model-name", tiny_clip, "--run-name", "p"])
    inference.main(["--checkpoint-dir", "checkpoints/p", "--overwrite"])
    config = REPOSITORY / "TFAM" / "configs" / "cross_attention.yaml"
    folder = train_and_eval.main(["--config", str(config), "--set", *SMALL_TFAM])
    assert json.loads((folder / "metrics.json").read_text())["num_videos"] == 4


def test_uneven_timestamps_are_the_same_on_both_sides(in_dataset: Path, tiny_clip: str) -> None:
    import av

    shutil.rmtree(in_dataset / "videos")
    (in_dataset / "videos").mkdir()
    with av.open(str(in_dataset / "videos" / "train0.mkv"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for t, image in enumerate(indexed_frames(9)):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = t * t, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    write_annotations(in_dataset / "annotations", {s: {f"{s}0.mkv": (0,)} for s in ("train", "val")})
    shutil.copy(in_dataset / "videos" / "train0.mkv", in_dataset / "videos" / "val0.mkv")
    run_chain(tiny_clip, ["--model", "dis"])
    rgb = store.EmbeddingReader(in_dataset / "embeddings" / "ak_train_clip_embeddings.h5").timestamps("train0.mkv")
    motion = store.EmbeddingReader(in_dataset / "embeddings" / "flow_embeddings.h5").timestamps("train0")
    assert rgb is not None and motion is not None
    assert np.allclose(rgb, np.arange(9) ** 2 / 25, atol=1e-3)
    assert np.allclose(motion, rgb[:-1], atol=1e-6)


def test_two_backbones_or_flows_or_classes_are_refused_naming_both(
    after_chain: Path, tiny_clip: str, tmp_path: Path
) -> None:
    shutil.copytree(tiny_clip.removeprefix("local-dir:"), tmp_path / "other")
    from safetensors.torch import load_file, save_file

    weights = load_file(tmp_path / "other" / "open_clip_model.safetensors")
    weights["visual.proj"] += 1
    save_file(weights, tmp_path / "other" / "open_clip_model.safetensors")
    other = f"local-dir:{tmp_path / 'other'}"
    with pytest.raises(UserError, match=r"local-dir:other.*local-dir:tinyclip"):
        train.main([*STUDENT, "--run-name", "x", "--clip-model-name", other])
    with pytest.raises(UserError, match=r"local-dir:tinyclip.*other"):
        extract_embeddings.main(["--clip-model-name", other])
    with pytest.raises(UserError, match=r"140.*ak_train_clip_embeddings.h5"):
        train.main([*STUDENT, "--run-name", "x", "--clip-model-name", tiny_clip, "--num-classes", "140"])
    with pytest.raises(UserError, match=r"sampling"):
        extract_embeddings.main(["--clip-model-name", tiny_clip, "--stride", "2"])
    with pytest.raises(UserError, match=r"farneback.*dis"):
        extract_flows.main(["--model", "farneback"])
    extract_flows.main(["--model", "farneback", "--output-dir", "flows2"])
    with pytest.raises(UserError, match=r"student_best.pth.*flows2"):
        inference.main(["--checkpoint-dir", "checkpoints/s", "--flow-videos-dir", "flows2", "--overwrite"])


def published_dataset(root: Path) -> None:
    """The published extractor's file and the flow of the same video under the published name, without a comment."""
    import av

    (root / "flows").mkdir(parents=True)
    for split in ("train", "val"):
        shutil.copy(SHARED / "published_files" / "rgb_embeddings.h5", root / f"{split}.h5")
    with av.open(str(root / "flows" / "SYN00000_raft_things.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for image in moving_frames(149, (1, 0)):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))


@pytest.mark.skipif(not SHARED.exists(), reason="needs the published code's files")
def test_the_published_codes_files_go_through_train_and_inference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    published_dataset(tmp_path)
    name = make_tiny_clip(tmp_path / "as-wide-as-b32", 512)
    arguments = ["--train-hdf5-path", "train.h5", "--val-hdf5-path", "val.h5", "--flow-videos-dir", "flows"]
    arguments += ["--clip-model-name", name, "--num-classes", "140"]
    arguments += ["--epochs", "1", "--run-name", "p", "--batch-size", "2", "--num-workers", "2"]
    folder = train.main(arguments)
    # and back: a published student is the plain state dict alone
    model, _ = moclip.load(folder / "student_best.pth")
    (tmp_path / "checkpoints" / "20250328-003544 - best").mkdir()
    torch.save(model.state_dict(), tmp_path / "checkpoints" / "20250328-003544 - best" / "student_epoch_1.pth")
    arguments = ["--checkpoint-dir", "checkpoints/20250328-003544", "--flow-videos-dir", "flows"]
    inference.main([*arguments, "--clip-model-name", name, "--num-classes", "140"])
    motion = store.EmbeddingReader(Path("dataset/embeddings/flow_embeddings.h5"), "motion")
    assert motion.keys == ["SYN00000"]
    assert motion.length("SYN00000") == 149


@pytest.mark.skipif(not SHARED.exists(), reason="needs the real clips")
def test_the_chain_on_real_video(tmp_path: Path, tiny_clip: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    labelled = SHARED / "clips" / "labelled"
    rows = read_csv(labelled / "labels.csv")
    actions = sorted({row["action"] for row in rows})
    (tmp_path / "dataset" / "videos").mkdir(parents=True)
    for row in rows:
        shutil.copy(labelled / row["video"], tmp_path / "dataset" / "videos")
    annotations = tmp_path / "dataset" / "annotations"
    annotations.mkdir()
    (annotations / "ak_action.csv").write_text("id,name\n" + "".join(f"{i},{a}\n" for i, a in enumerate(actions)))
    for split, chosen in (("train", rows[::2]), ("val", rows[1::2])):
        lines = [f"{row['video']} {actions.index(row['action'])}\n" for row in chosen]
        (annotations / f"{split}_multi.txt").write_text("".join(lines))
    run_chain(tiny_clip, ["--model", "dis", "--size", "64"])
    config = REPOSITORY / "TFAM" / "configs" / "cross_attention.yaml"
    folder = train_and_eval.main(["--config", str(config), "--set", *SMALL_TFAM])
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["num_videos"] == len(rows[1::2])
    for row in rows:
        rgb_frames = sum(len(batch.frames) for batch in video.VideoReader(labelled / row["video"], 16))
        flow = video.probe(tmp_path / "dataset" / "flows" / f"{Path(row['video']).stem}.mp4")
        assert flow.frames == rgb_frames - 1
        assert min(flow.width, flow.height) == 64


def test_a_label_out_of_range_is_refused(in_dataset: Path, tiny_clip: str) -> None:
    write_annotations(in_dataset / "annotations", {"train": {"train0.mp4": (3,)}})
    with pytest.raises(UserError, match=r"train_multi.txt:1: .*train0.mp4"):
        extract_embeddings.main(["--clip-model-name", tiny_clip])


def test_a_split_without_videos_is_skipped_with_a_line_or_refused_if_named(in_dataset: Path, tiny_clip: str) -> None:
    (in_dataset / "annotations" / "test_multi.txt").write_text("\n")
    report = extract_embeddings.main(["--clip-model-name", tiny_clip])
    assert (report.done, len(report.outputs)) == (10, 2)
    with pytest.raises(UserError, match=r"test_multi.txt"):
        extract_embeddings.main(["--clip-model-name", tiny_clip, "--split", "test"])


def test_a_split_that_does_not_fit_is_refused_before_the_others_are_embedded(in_dataset: Path, tiny_clip: str) -> None:
    extract_embeddings.main(["--clip-model-name", tiny_clip, "--split", "val", "--stride", "2"])
    with pytest.raises(UserError, match=r"ak_val_.*sampling"):
        extract_embeddings.main(["--clip-model-name", tiny_clip])
    assert not list((in_dataset / "embeddings" / "ak_train_clip_embeddings.h5.parts").glob("*.part"))


def test_flow_videos_with_unusable_names_are_reported(after_chain: Path, tiny_clip: str) -> None:
    for name in (b"=a.mp4", b"a\nb.mp4", b"\xff.mp4"):
        shutil.copy(after_chain / "flows" / "val0.mp4", after_chain / "flows" / os.fsdecode(name))
    report = inference.main(["--checkpoint-dir", "checkpoints/s", "--overwrite"])
    assert (report.done, sorted(report.failed)) == (10, ["'=a'", "'\\udcff'", "'a\\nb'"])
    assert len(store.EmbeddingReader(after_chain / "embeddings" / "flow_embeddings.h5", "motion").keys) == 10


def test_failed_videos_make_exit_code_1(in_dataset: Path, tiny_clip: str) -> None:
    (in_dataset / "videos" / "train0.mp4").write_bytes(b"")
    script = REPOSITORY / "extract_flows.py"
    done = shell(f"python {script} --model dis", in_dataset.parent, PYTHONPATH=str(REPOSITORY))
    assert done.returncode == 1
    assert "train0.mp4: " in done.stdout
