"""TFAM: the model's sums, pairing of files, and whole runs on files of a few videos."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.conftest import locked_elsewhere
from TFAM import config as tfam_config
from TFAM.config import from_arguments
from TFAM.data import Item, Pairs, collate, control_motion, open_splits, pair
from TFAM.evaluation import about_run
from TFAM.loops import evaluate, train_one_epoch
from TFAM.model import Fusion, FusionTransformer
from TFAM.table import main as table
from TFAM.train_and_eval import build_parser, main
from TFAM.trainer import Trainee, fit
from vimoclip.errors import TrainingError, UserError
from vimoclip.runtime import seeding
from vimoclip.store import Reader, Writer
from vimoclip.training.checkpoint import load_checkpoint, load_state, save_checkpoint

ROOT = Path(__file__).parents[1]
PUBLISHED = ROOT.parent / "shared" / "data" / "published_files"
CONFIGS = sorted(p for p in (ROOT / "TFAM" / "configs").glob("*.yaml") if p.stem != "default")
WITH_MOTION = [fusion for fusion in Fusion if fusion != Fusion.RGB]
CPU = torch.device("cpu")
SMALL = {"d_model": 8, "num_heads": 2, "num_layers": 2, "dim_feedforward": 16, "num_classes": 3}
OFF = {"dropout": 0.0, "classifier_dropout": 0.0}
TINY = ["model.num_heads=2", "model.num_layers=1", "model.dim_feedforward=16", "training.epochs=3", "training.lr=1e-2"]
CLASSES = ["eating", "running", "resting"]
SAMPLING = {"stride": 1, "fps": None, "max_frames": None}
TEACHER = {"clip_model": "ViT-B/32", "weights_sha256": "aa"}
VARIANTS = [(fusion, positions) for fusion in Fusion for positions in (False, True)]


def build(fusion, positions=False, pooling="masked", **changes):
    torch.manual_seed(0)
    return FusionTransformer(
        **{"fusion": fusion, "positions": positions, "pooling": pooling, **SMALL, **OFF, **changes}
    )


def items(lengths, seed=0):
    random = torch.Generator().manual_seed(seed)
    rows = [torch.randn(2, length, 8, generator=random) for length in lengths]
    return [Item(f"v{i}.mp4", r[0], r[1, :-1], torch.eye(3)[i % 3]) for i, r in enumerate(rows)]


# --- the model


@pytest.mark.parametrize(("fusion", "positions"), VARIANTS)
def test_padded_mean_gives_the_published_logits(fusion, positions):
    if not (PUBLISHED / "tfam_logits.npz").is_file():
        pytest.skip("the published code's outputs aren't here")
    data = {key: torch.from_numpy(value) for key, value in np.load(PUBLISHED / "tfam_logits.npz").items()}
    heads = int(data["num_heads"])
    shape = {"d_model": 32, "num_heads": heads, "num_layers": 2, "dim_feedforward": 64, "num_classes": 5}
    model = build(fusion, positions, "padded_mean", **shape).eval()
    weights = {key.removeprefix("weights/"): value for key, value in data.items() if key.startswith("weights/")}
    model.load_state_dict(weights)
    with torch.no_grad():
        logits = model(data["rgb"], data["rgb_lengths"], data["motion"], data["motion_lengths"])
    expected = data[f"logits/{fusion}" + "/positions" * positions]
    torch.testing.assert_close(logits, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("fusion", "stream"), [(f, s) for f in Fusion for s in ("rgb", "motion") if {f, s} != {"rgb", "motion"}]
)
@pytest.mark.parametrize("positions", [False, True])
def test_with_normalized_inputs_the_scale_of_a_stream_changes_no_logit(fusion, positions, stream):
    batch = collate(items([6, 3, 5]))
    scaled = batch._replace(**{stream: 100 * getattr(batch, stream)})

    def logits(given, **changes):
        with torch.no_grad():
            return build(fusion, positions, **changes).eval()(*given.inputs(CPU))

    normalized = logits(batch, normalize_inputs=True)
    torch.testing.assert_close(logits(scaled, normalize_inputs=True), normalized, atol=1e-5, rtol=0)
    assert (logits(scaled) - logits(batch)).abs().max() > 1e-3
    assert torch.equal(logits(batch), logits(batch, normalize_inputs=False))
    assert (normalized - logits(batch)).abs().max() > 1e-6


@pytest.mark.parametrize(("fusion", "positions"), VARIANTS)
@hypothesis_settings(max_examples=6, deadline=None)
@given(lengths=st.lists(st.integers(2, 12), min_size=2, max_size=4), seed=st.integers(0, 99))
def test_logits_are_the_same_alone_and_in_any_batch(fusion, positions, lengths, seed):
    model = build(fusion, positions).eval()
    videos = items(lengths, seed)
    with torch.no_grad():
        together = model(*collate(videos).inputs(CPU))
        alone = torch.cat([model(*collate([video]).inputs(CPU)) for video in videos])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("fusion", Fusion)
def test_gradients_reach_the_parameters_that_a_variant_uses(fusion):
    model = build(fusion)
    logits = model(*collate(items([5, 3])).inputs(CPU))
    assert logits.shape == (2, 3)
    logits.square().sum().backward()
    reached = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    unused = {name for name, _ in model.named_parameters()} - reached
    expected = r"layers\.\d\.(cross_attn|norm_cross)\." if fusion != Fusion.CROSS_ATTENTION else r"$^"
    projected = fusion == Fusion.CONCAT_EMBEDDING
    assert all(re.match(expected, n) or (not projected and n.startswith("projection_layer.")) for n in unused)


def test_every_variant_has_the_published_keys(tmp_path):
    layer = ["self_attn", "cross_attn", "ffn.0", "ffn.3", "norm_self", "norm_cross", "norm_ffn"]
    prefixes = {f"layers.{i}.{name}" for i in range(2) for name in layer}
    prefixes |= {"projection_layer", "classifier.0", "classifier.1", "classifier.4"}
    state = build("cross_attention").state_dict()
    found = {re.sub(r"(\.out_proj)?\.(in_proj_)?(weight|bias)$", "", key) for key in state}
    assert found == prefixes
    for name, prefix in (("plain.pth", ""), ("wrapped.pth", "module.")):
        torch.save({prefix + key: value for key, value in state.items()}, tmp_path / name)
        for fusion in Fusion:
            model = build(fusion, num_classes=3)
            load_state(model, load_checkpoint(tmp_path / name)["state_dict"], tmp_path / name)


def test_heads_must_divide_the_width():
    with pytest.raises(UserError, match=r"num_heads is 3.*width 8"):
        build("rgb", num_heads=3)


def test_motion_is_needed_where_it_is_used():
    with pytest.raises(ValueError, match="needs motion"):
        build("cross_attention")(torch.zeros(1, 4, 8), torch.tensor([4]))


# --- the loops


def step_tools(model, lr=0.01, weight_decay=0.0):
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=weight_decay)
    return optimizer, torch.amp.GradScaler("cpu", enabled=False), F.binary_cross_entropy_with_logits, CPU, "fp32"


@pytest.mark.parametrize("fusion", Fusion)
def test_a_batch_can_be_learned_by_heart(fusion):
    model, batch = build(fusion, num_layers=1), collate(items([6, 4, 5]))
    tools = step_tools(model)
    losses = [train_one_epoch(model, [batch], *tools) for _ in range(200)]
    assert losses[-1] < 0.05 < losses[0]
    found = evaluate(model, [batch], F.binary_cross_entropy_with_logits, CPU, "fp32")
    assert found["metrics"]["map_macro"] == found["metrics"]["map_micro"] == 1
    assert found["metrics"]["num_videos"] == found["metrics"]["classes_with_a_positive"] == 3


class OneWeight(torch.nn.Module):
    """A logit that is the weight: small enough to compute a step of training by hand."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([2.0]))

    def forward(self, rgb, rgb_lengths, motion, motion_lengths):
        return self.weight.expand(len(rgb), 1)


def test_a_step_of_adamw_on_bce_is_as_by_hand():
    model = OneWeight()
    batch = collate([Item("a.mp4", torch.ones(1, 1), None, torch.ones(1))])
    loss = train_one_epoch(model, [batch], *step_tools(model, lr=0.1, weight_decay=0.5))
    assert loss == pytest.approx(0.126928, abs=1e-6)  # ln(1 + e^-2)
    # decay: 2 (1 - 0.1 * 0.5) = 1.9; Adam's first step is the learning rate, against the gradient's sign
    assert model.weight.item() == pytest.approx(2.0, abs=1e-6)


def test_a_loss_that_is_not_finite_names_the_videos():
    videos = items([4, 3])
    videos[1].rgb[0] = float("nan")
    model = build("rgb")
    with pytest.raises(TrainingError, match=r"v0\.mp4, v1\.mp4"):
        train_one_epoch(model, [collate(videos)], *step_tools(model))


# --- settings


def test_configs_are_a_line_or_two_and_pairwise_different():
    assert len(CONFIGS) == 22
    assert all(len(path.read_text().splitlines()) <= 2 for path in CONFIGS)
    resolved = [json.dumps(tfam_config.load([path]), sort_keys=True) for path in CONFIGS]
    assert len(set(resolved)) == 22
    assert {path.stem for path in CONFIGS} >= set(Fusion)
    for path in CONFIGS:
        config = tfam_config.load([path])
        assert path.stem.startswith(config["model"]["fusion"])
        assert config["training"]["batch_size"] == (4 if config["model"]["fusion"] == "concat_time" else 8)


@pytest.mark.parametrize("motion", ["none", "shuffled"])
def test_the_controls_are_cross_attention_but_for_its_motion(motion):
    one, other = (tfam_config.load([named(name)]) for name in ("cross_attention", f"cross_attention_{motion}"))
    assert {**one, "data": one["data"] | {"motion": motion}} == other


def test_the_defaults_are_the_published_behaviour():
    config = tfam_config.load([])
    assert config["training"]["checkpoint"] == "best" and config["data"]["motion"] == "real"
    assert config["model"]["normalize_inputs"] is False and config["model"]["positions"] is False


@pytest.mark.parametrize("motion", ["none", "shuffled"])
def test_a_control_is_refused_where_no_motion_is_seen(motion):
    with pytest.raises(UserError, match=rf"data\.motion is {motion}.*model\.fusion rgb"):
        tfam_config.load([named("rgb")], [f"data.motion={motion}"])
    with pytest.raises(UserError, match=rf"data\.motion is {motion}.*model\.fusion rgb"):
        tfam_config.load([named(f"cross_attention_{motion}"), named("rgb")])


def test_a_learning_rate_that_yaml_reads_as_text_reaches_the_optimiser(tmp_path):
    (tmp_path / "slow.yaml").write_text("training: {lr: 3e-4}\n")
    assert isinstance(yaml.safe_load("lr: 3e-4")["lr"], str)
    config = tfam_config.load([tmp_path / "slow.yaml"], ["training.weight_decay=0"])
    trainee = Trainee({**config, "model": config["model"] | SMALL}, CPU, "fp32")
    assert isinstance(trainee.optimizer, torch.optim.AdamW)
    assert trainee.optimizer.param_groups[0]["lr"] == 3e-4
    assert trainee.optimizer.param_groups[0]["weight_decay"] == 0
    for _ in range(config["training"]["epochs"]):
        trainee.optimizer.step()
        trainee.scheduler.step()
    assert trainee.optimizer.param_groups[0]["lr"] == pytest.approx(1e-6)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.lrr=1", "training.lr"),
        ("trainning.lr=1", "training, data, model"),
        ("training.epochs=1.5", "whole number"),
        ("training.epochs=0", "above 0"),
        ("training.epochs=true", "whole number"),
        ("training.lr=fast", "a number"),
        ("training.lr=.nan", "above 0"),
        ("training.min_lr=1", "above training.lr"),
        ("model.positions=1", "true or false"),
        ("model.fusion=both", "concat_time"),
        ("model.dropout=1", "below 1"),
        ("training.checkpoint=first", "best, last"),
        ("data.motion=fake", "real, none, shuffled"),
        ("data.protocol=test", "held_out, published"),
        ("training.loss=mse", "bce, focal, asymmetric"),
        ("model.normalize_inputs=2", "true or false"),
        ("training.grad_clip_norm=-1", "above 0"),
        ("epochs=1", "section.key=value"),
        ("model=rgb", "section.key=value"),
    ],
)
def test_a_wrong_setting_is_named_with_what_would_be_right(override, message):
    with pytest.raises(UserError, match=re.escape(message)):
        tfam_config.load([], [override])


def test_every_flag_of_the_settings_reaches_the_config(tmp_path):
    def resolved(*argv):
        return from_arguments(build_parser().parse_args(list(argv)), [])

    plain = resolved()
    assert plain["training"]["seed"] == 49
    assert plain["data"]["motion_h5"] == str(Path("dataset/embeddings/flow_embeddings.h5"))
    assert resolved("--seed", "3")["training"]["seed"] == 3
    assert resolved("--limit", "3")["data"]["limit"] == 3
    assert resolved("--dataset_dir", "d")["data"]["motion_h5"] == str(Path("d/embeddings/flow_embeddings.h5"))
    assert resolved("--dataset-dir", "d")["data"]["annotations_dir"] == str(Path("d/annotations"))
    assert resolved("--dataset-name", "x")["data"]["rgb_val_h5"].endswith("x_val_clip_embeddings.h5")
    assert resolved("--set", "data.motion_h5=m.h5", "training.grad_clip_norm=None")["data"]["motion_h5"] == "m.h5"
    assert resolved("--set", "training.grad_clip_norm=2")["training"]["grad_clip_norm"] == 2.0


# --- files


def write_h5(path, videos, labels=None, **attributes):
    """`videos`: key -> (T, D) rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = Writer(path, attributes)
    for number, (key, rows) in enumerate(videos.items()):
        part = writer.part(key)
        part.append(rows)
        steps = np.arange(len(rows))
        part.finish(steps, steps / 25, len(rows), 25.0, None if labels is None else labels[number])
    return writer.finish(videos)


def rows_for(number, length, shown=True, width=8):
    """Frames that show their class: the first column of class `number % 3` is large. Or frames of noise."""
    rows = np.random.default_rng(number + (0 if shown else 1000)).normal(size=(length, width)).astype(np.float32)
    rows[:, number % 3] += 2 if shown else 0
    return rows


def write_rgb(path, numbers, shown=True, turned=0, width=8, **changes):
    """`turned` labels each video with another class than it shows."""
    videos = {f"V{n:02}.mp4": rows_for(n, 4 + n % 5, shown, width) for n in numbers}
    labels = np.eye(3, dtype=np.float32)[[(n + turned) % 3 for n in numbers]]
    about = {
        "kind": "rgb",
        "class_names": CLASSES,
        "num_classes": 3,
        "embed_dim": width,
        "sampling": SAMPLING,
        **TEACHER,
    }
    return write_h5(path, videos, labels, **about | changes)


def write_motion(path, numbers, lengths=None, width=8, **changes):
    lengths = {n: 3 + n % 5 for n in numbers} | (lengths or {})
    videos = {f"V{n:02}": rows_for(n, lengths[n], width=width) for n in numbers}
    about = {"kind": "motion", "embed_dim": width, "sampling": SAMPLING, "student": {"teacher": TEACHER}}
    return write_h5(path, videos, **about | {"clip_model": "ViT-B/32", "weights_sha256": "student"} | changes)


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    """Nine training and six validation videos in the folder that the test is in."""
    monkeypatch.chdir(tmp_path)
    folder = Path("dataset/embeddings")
    write_rgb(folder / "ak_train_clip_embeddings.h5", range(9))
    write_rgb(folder / "ak_val_clip_embeddings.h5", range(9, 15))
    write_motion(folder / "flow_embeddings.h5", range(15))
    return folder


def named(config):
    return ROOT / "TFAM" / "configs" / f"{config}.yaml"


def command(config="cross_attention", *more):
    return ["--config", str(named(config)), "--num-workers", "0", "--device", "cpu", *more, "--set", *TINY]


def open_all(folder, fusion="cross_attention", limit=None):
    paths = {split: folder / f"ak_{split}_clip_embeddings.h5" for split in ("train", "val")}
    return open_splits(paths, folder / "flow_embeddings.h5", fusion, limit)


def test_videos_that_do_not_fit_are_counted_and_named(dataset, capsys):
    (dataset / "flow_embeddings.h5").unlink()
    write_motion(dataset / "flow_embeddings.h5", [*range(1, 15), 77], {2: 2})
    splits, _ = open_all(dataset)
    assert len(splits["train"]) == 7 and len(splits["val"]) == 6
    out = capsys.readouterr().out
    assert "7 train videos, 2 left out" in out and "V00.mp4: isn't in" in out
    assert "V02.mp4: 6 RGB frames need 5 motions, but there are 2" in out
    assert "left out: V77: in neither RGB file" in out
    rgb_row, motion = open_all(dataset, "rgb")
    assert rgb_row["train"].keys == splits["train"].keys and motion is None  # the same videos in every row of the table
    assert rgb_row["train"][0].motion is None


def test_rgb_does_without_a_motion_file_and_says_so(dataset, capsys):
    (dataset / "flow_embeddings.h5").unlink()
    assert len(open_all(dataset, "rgb")[0]["train"]) == 9
    assert "no such file, so all RGB videos are used" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"flow_embeddings.h5: there is no such file"):
        open_all(dataset)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"student": {"teacher": {"clip_model": "ViT-B/16"}}}, ["ViT-B/32", "ViT-B/16"]),
        ({"student": {"teacher": {"weights_sha256": "bb"}}}, ["aa", "bb"]),
        ({"sampling": {"stride": 2, "fps": None, "max_frames": None}}, ["'stride': 1", "'stride': 2"]),
    ],
)
def test_motions_of_another_backbone_or_sampling_are_refused(dataset, changes, words):
    (dataset / "flow_embeddings.h5").unlink()
    write_motion(dataset / "flow_embeddings.h5", range(15), **changes)
    with pytest.raises(UserError) as error:
        open_all(dataset)
    assert all(word in str(error.value) for word in [*words, "ak_train_clip_embeddings.h5", "flow_embeddings.h5"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clip_model": "ViT-B/16"}, "clip_model is ViT-B/32 .* ViT-B/16"),
        ({"class_names": ["eating", "flying", "resting"]}, "class 1 is running .* flying"),
        ({"sampling": {"stride": 2}}, "sampling is"),
    ],
)
def test_two_rgb_files_must_agree(dataset, changes, message):
    (dataset / "ak_val_clip_embeddings.h5").unlink()
    write_rgb(dataset / "ak_val_clip_embeddings.h5", range(9, 15), **changes)
    with pytest.raises(UserError, match=message):
        open_all(dataset)


def test_a_video_in_both_splits_is_refused(dataset):
    (dataset / "ak_val_clip_embeddings.h5").unlink()
    write_rgb(dataset / "ak_val_clip_embeddings.h5", range(8, 15))
    with pytest.raises(UserError, match="V08 is in"):
        open_all(dataset)


def published_layout(source, target):
    """The same videos as the published code writes them: no schema, a stray data set, a dotted key's first part."""
    with h5py.File(source) as ours, h5py.File(target, "w") as theirs:
        for key in ours:
            for name in {"embeddings", "labels"} & set(ours[key]):
                theirs.create_dataset(f"{key}/{name}", data=ours[key][name][:], compression="gzip")
        theirs["video_ids"] = np.array([1])
    target.replace(source)


def test_published_files_train_with_a_word_that_nothing_could_be_checked(dataset, capsys):
    for path in list(dataset.glob("*.h5")):
        published_layout(path, dataset / "other")
    folder = main(command())
    out = capsys.readouterr().out
    assert out.count("nothing could be checked") == 3
    header = (folder / "predictions.csv").read_text().splitlines()[0]
    assert header == "video_id,class_0,class_1,class_2"


# --- the control: another video's motion


@pytest.fixture(scope="module")
def numbered(tmp_path_factory):
    """Readers of 50 videos of 2 to 8 frames and their motions, of which step t of video n is (n, t, 0, 0)."""
    folder = tmp_path_factory.mktemp("numbered")
    lengths = {n: 2 + n * 5 % 7 for n in range(50)}
    motions = {
        f"V{n:02}": np.array([[n, t, 0, 0] for t in range(frames - 1)], np.float32) for n, frames in lengths.items()
    }
    rgb = write_h5(
        folder / "rgb.h5",
        {f"V{n:02}.mp4": np.zeros((length, 4), np.float32) for n, length in lengths.items()},
        np.eye(3, dtype=np.float32)[[n % 3 for n in lengths]],
        kind="rgb",
    )
    return Reader(rgb, "rgb"), Reader(write_h5(folder / "motion.h5", motions, kind="motion"), "motion")


def giver_of(item):
    assert item.motion is not None
    return int(item.motion[0, 0])


def shuffled(readers, size, seed):
    rgb, motion = readers
    videos = pair(rgb, motion, "cross_attention", size)
    control_motion({"val": videos}, tfam_config.load([], ["data.motion=shuffled", f"training.seed={seed}"]))
    return [videos[i] for i in range(len(videos))]


@hypothesis_settings(max_examples=40, deadline=None)
@given(size=st.integers(2, 50), seed=st.integers(0, 2**32 - 1))
def test_each_motion_goes_to_one_other_video_and_fits_it(numbered, size, seed):
    videos = shuffled(numbered, size, seed)
    givers = [giver_of(video) for video in videos]
    assert sorted(givers) == list(range(size))
    assert all(giver != number for number, giver in enumerate(givers))
    assert [video.video for video in videos] == [f"V{n:02}.mp4" for n in range(size)]
    for video, giver in zip(videos, givers, strict=True):
        steps = numbered[1].length(f"V{giver:02}")
        expected = [[giver, t % steps, 0, 0] for t in range(len(video.rgb) - 1)]  # repeated, or cut
        assert video.motion.tolist() == expected
    assert all(torch.equal(a.motion, b.motion) for a, b in zip(videos, shuffled(numbered, size, seed), strict=True))


def test_another_seed_shuffles_in_another_way_and_real_motion_is_its_own(numbered):
    orders = [tuple(giver_of(video) for video in shuffled(numbered, 20, seed)) for seed in range(5)]
    assert len(set(orders)) == 5
    rgb, motion = numbered
    videos = pair(rgb, motion, "cross_attention")
    control_motion({"val": videos}, tfam_config.load([]))
    assert [giver_of(videos[i]) for i in range(50)] == list(range(50))


@pytest.mark.parametrize("fusion", WITH_MOTION)
def test_every_fusion_with_motion_runs_on_shuffled_motion(numbered, fusion):
    batch = collate(shuffled(numbered, 50, 1))
    assert build(fusion, d_model=4)(*batch.inputs(CPU)).isfinite().all()


def test_one_video_alone_takes_the_motion_of_another_split_and_else_there_is_none_to_take(dataset):
    folder = main(command("cross_attention_shuffled", "--limit", "1"))
    with pytest.raises(UserError, match=r"ak_val_clip_embeddings.h5: data.motion is shuffled.*two videos"):
        main(["--evaluate", str(folder / "best_model.pth"), "--limit", "1"])


@pytest.fixture
def told_by_motion(tmp_path, monkeypatch):
    """Videos whose frames are noise: only their motion shows the class."""
    monkeypatch.chdir(tmp_path)
    folder = Path("dataset/embeddings")
    write_rgb(folder / "ak_train_clip_embeddings.h5", range(36), shown=False, width=32)
    write_rgb(folder / "ak_val_clip_embeddings.h5", range(36, 66), shown=False, width=32)
    write_motion(folder / "flow_embeddings.h5", range(66), width=32)
    return folder


def test_shuffled_motion_takes_away_what_only_motion_tells(told_by_motion):
    found = {}
    for config in ("cross_attention", "cross_attention_shuffled"):
        folder = main([*command(config), "training.epochs=6", "training.checkpoint=last"])
        found[config] = json.loads((folder / "metrics.json").read_text())
    assert found["cross_attention"]["map_macro"] > 0.95
    assert found["cross_attention_shuffled"]["map_macro"] < 0.6
    assert found["cross_attention_shuffled"]["settings"]["data.motion"] == "shuffled"
    assert "data.motion" not in found["cross_attention"]["settings"]


def test_a_shuffled_checkpoint_is_evaluated_with_shuffled_motion(told_by_motion):
    folder = main(command("cross_attention_shuffled"))
    checkpoint, ran = folder / "best_model.pth", json.loads((folder / "metrics.json").read_text())
    found = main(["--evaluate", str(checkpoint), "--device", "cpu", "--num-workers", "0"])
    assert (found["map_macro"], found["map_micro"]) == (ran["map_macro"], ran["map_micro"])
    assert found["settings"]["data.motion"] == "shuffled"
    written = Path("TFAM/results/evaluate/cross_attention_shuffled-seed49-best_model/predictions.csv")
    assert written.read_text() == (folder / "predictions.csv").read_text()
    asked = main(["--evaluate", str(checkpoint), "--device", "cpu", "--set", "data.motion=real"])
    assert "data.motion" not in asked["settings"]
    assert written.read_text() != (folder / "predictions.csv").read_text()


# --- runs


def contents(folder):
    """What must not depend on whether a run was stopped."""
    state = torch.load(folder / "best_model.pth", weights_only=True)
    last = torch.load(folder / "last.pth", weights_only=True)
    texts = {name: (folder / name).read_text() for name in ("metrics.csv", "predictions.csv")}
    texts["metrics.json"] = json.loads((folder / "metrics.json").read_text()) | {"seconds": None}
    return texts, [*state["state_dict"].values(), *last["state_dict"].values()]


def assert_same_run(one, other):
    (texts, tensors), (other_texts, other_tensors) = contents(one), contents(other)
    assert texts == other_texts
    assert all(torch.equal(a, b) for a, b in zip(tensors, other_tensors, strict=True))


def test_a_run_leaves_all_that_it_should(dataset, capsys):
    folder = main(command())
    assert folder == Path("checkpoints/TFAM/cross_attention/seed49")
    names = {"config.yaml", "best_model.pth", "last.pth", "metrics.csv", "metrics.json", "predictions.csv"}
    assert {path.name for path in folder.iterdir()} == names
    assert list(Path("logs/TFAM/cross_attention/seed49").glob("events*"))
    metrics = json.loads((folder / "metrics.json").read_text())
    rows = list(csv.DictReader((folder / "metrics.csv").open()))
    best = max(rows, key=lambda row: float(row["val_map_micro"]))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"] and metrics["epoch"] == int(best["epoch"])
    assert metrics["map_micro"] == float(best["val_map_micro"]) and metrics["num_videos"] == 6
    assert metrics["epoch_chosen_by"] == "map_micro on the reported clips"
    assert metrics["config"] == metrics["fusion"] == "cross_attention" and metrics["seed"] == 49
    predictions = list(csv.DictReader((folder / "predictions.csv").open()))
    assert [row["video_id"] for row in predictions] == [f"V{n:02}.mp4" for n in range(9, 15)]
    assert list(predictions[0]) == ["video_id", *CLASSES]
    checkpoint = torch.load(folder / "best_model.pth", weights_only=True)
    assert set(checkpoint) == {"state_dict", "config", "class_names", "epoch", "metrics", "versions"}
    assert checkpoint["config"]["inputs"]["rgb"]["clip_model"] == "ViT-B/32"
    assert checkpoint["config"]["inputs"]["motion"]["student"] == {"teacher": TEACHER}
    again = yaml.safe_load((folder / "config.yaml").read_text())
    assert again["training"]["lr"] == 0.01 and again["model"]["num_layers"] == 1

    before = (folder / "metrics.json").stat().st_mtime_ns
    del again["training"]["checkpoint"], again["data"]["motion"], again["model"]["normalize_inputs"]
    del again["data"]["protocol"], again["data"]["annotations_dir"]
    (folder / "config.yaml").write_text(yaml.safe_dump(again))  # as a run that is older than these keys
    capsys.readouterr()
    main(command())
    assert "finished already" in capsys.readouterr().out
    assert (folder / "metrics.json").stat().st_mtime_ns == before
    with pytest.raises(UserError, match=r"training.epochs 3, now it is 2"):
        main([*command(), "training.epochs=2"])
    main([*command("cross_attention", "--overwrite"), "training.epochs=2"])
    assert len((folder / "metrics.csv").read_text().splitlines()) == 3

    assert table([]) == Path("TFAM/results/table.csv")
    with Path("TFAM/results/table.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert list(row)[:3] == ["config", "seeds", "map_macro_mean"]
    assert row["paper_map_micro"] == "0.7709" and row["seeds"] == "1" and row["map_micro_std"] == ""
    assert "training.epochs=2" in Path("TFAM/results/table.md").read_text()


@pytest.mark.parametrize("file", ["ak_train_clip_embeddings.h5", "ak_val_clip_embeddings.h5", "flow_embeddings.h5"])
def test_a_finished_run_is_not_taken_for_one_of_other_embeddings_under_the_same_names(dataset, file):
    folder = main(command())
    write = write_motion if file.startswith("flow") else write_rgb
    numbers = {"ak_train_clip_embeddings.h5": range(9), "ak_val_clip_embeddings.h5": range(9, 15)}.get(file, range(15))
    (dataset / file).rename(dataset / "before.h5")
    write(dataset / file, numbers)
    assert main(command()) == folder  # made anew, but the same
    (dataset / file).unlink()
    write(dataset / file, numbers, shown=False) if write is write_rgb else write(dataset / file, numbers, {0: 7})
    with pytest.raises(UserError, match=rf"SHA-256 is \w+ in {folder} but \w+ in .*{file}"):
        main(command())
    (dataset / file).unlink()
    assert main(command()) == folder  # who has the result needs the files no longer


def test_a_run_goes_on_with_the_validation_videos_that_it_began_with(dataset):
    last = main(command()) / "last.pth"
    (last.parent / "metrics.json").unlink()
    (dataset / "ak_val_clip_embeddings.h5").unlink()
    write_rgb(dataset / "ak_val_clip_embeddings.h5", range(9, 15), shown=False)
    with pytest.raises(UserError, match=rf"{last}: was made with validated_on \w+, now it is \w+"):
        main(command())


@pytest.mark.parametrize(
    "nonsense",
    [
        {"config": 3},
        {"config": {"training": 1, "model": 2, "inputs": 3}},
        {"config": {"training": {}, "model": {"num_heads": "x"}, "inputs": {}}},
        {"config": {"training": {}, "model": {"depth": 9}, "inputs": {}}},
        {"config": {"training": {}, "model": {}, "inputs": {"rgb": [1]}}},
        {"config": {"training": {}, "model": {}, "inputs": {}, "data": {"motion": {}}}},
        {"class_names": "abc"},
        {"class_names": [1, {}]},
    ],
)
def test_a_checkpoint_whose_config_is_nonsense_is_refused_in_a_line(dataset, nonsense):
    path = main(command()) / "best_model.pth"
    save_checkpoint(path, torch.load(path, weights_only=True) | nonsense)
    with pytest.raises(UserError) as caught:
        main(["--evaluate", str(path), "--num-workers", "0", "--device", "cpu"])
    assert len(str(caught.value).splitlines()) == 1


def test_a_second_process_on_a_run_is_refused(dataset):
    folder = Path("checkpoints/TFAM/cross_attention/seed49")
    with locked_elsewhere(folder) as pid, pytest.raises(UserError, match=rf"{folder}: process {pid} on .* writes it"):
        main(command())
    assert main(command()) == folder


class StopsAt(Pairs):
    """Training videos of which the so-many-th asked for stops the run, as Ctrl-C does."""

    asked: list[int]
    stop_after = 0

    def __getitem__(self, index):
        if len(self.asked) == self.stop_after:
            raise KeyboardInterrupt
        self.asked.append(index)
        return super().__getitem__(index)


@pytest.mark.parametrize(("how", "checkpoint"), [("same command", "best"), ("--resume", "best"), ("--resume", "last")])
def test_a_run_that_was_stopped_ends_as_one_that_was_not(dataset, how, checkpoint):
    kept = f"training.checkpoint={checkpoint}"
    whole = main([*command("concat_time_positions_dropout", "--checkpoints-dir", "whole"), kept])
    folder = Path("checkpoints/TFAM/concat_time_positions_dropout/seed49")
    folder.mkdir(parents=True)
    shutil.copy(whole / "config.yaml", folder)
    config = tfam_config.load([folder / "config.yaml"])
    splits, motion = open_all(dataset, "concat_time")
    train = splits["train"]
    stopping = StopsAt(train.rgb, train.motion, train.keys, train.left_out)
    stopping.asked, stopping.stop_after = [], 2 * len(train) + 5  # in the second batch of the third epoch
    about = about_run(config, train.rgb, motion)
    with pytest.raises(KeyboardInterrupt):
        fit(about, splits | {"train": stopping}, folder, Path("logs"), CPU, "fp32", 0)
    assert stopping.asked[:18] == seeding.epoch_order(9, 49, 1) + seeding.epoch_order(9, 49, 2)
    assert len((folder / "metrics.csv").read_text().splitlines()) == 3
    assert (folder / "best_model.pth").is_file() == (checkpoint == "best")  # the last is there only at the end
    with pytest.raises(UserError, match=r"training.lr"):
        main(["--resume", str(folder), "--set", "training.lr=1e-3"])
    main(["--resume", str(folder), "--device", "cpu"] if how == "--resume" else [*command(folder.parent.name), kept])
    assert_same_run(whole, folder)


def test_the_last_epoch_is_kept_also_where_an_earlier_one_was_better(dataset):
    (dataset / "ak_val_clip_embeddings.h5").unlink()
    # the better it learns, the worse it does on these
    write_rgb(dataset / "ak_val_clip_embeddings.h5", range(9, 15), turned=1)
    found, rows = {}, {}
    for checkpoint in ("best", "last"):
        folder = main([*command("rgb", "--checkpoints-dir", checkpoint), f"training.checkpoint={checkpoint}"])
        found[checkpoint] = json.loads((folder / "metrics.json").read_text())
        rows[checkpoint] = list(csv.DictReader((folder / "metrics.csv").open()))
        state = torch.load(folder / "best_model.pth", weights_only=True)
        assert state["epoch"] == found[checkpoint]["epoch"]
        row = rows[checkpoint][found[checkpoint]["epoch"] - 1]
        assert found[checkpoint]["map_micro"] == float(row["val_map_micro"])
        assert found[checkpoint]["map_macro"] == float(row["val_map_macro"])
        again = main(["--evaluate", str(folder / "last.pth"), "--device", "cpu", "--results-dir", checkpoint])
        last = Path(checkpoint, "evaluate", "rgb-seed49-last", "predictions.csv").read_text()
        assert ((folder / "predictions.csv").read_text() == last) == (checkpoint == "last")
        assert (again["map_micro"] == found[checkpoint]["map_micro"]) == (checkpoint == "last")
        end = torch.load(folder / "last.pth", weights_only=True)["state_dict"]
        same = all(torch.equal(tensor, end[name]) for name, tensor in state["state_dict"].items())
        assert same == (checkpoint == "last")
    assert rows["best"] == rows["last"]
    assert found["best"]["epoch"] < found["last"]["epoch"] == 3
    assert found["best"]["map_micro"] > found["last"]["map_micro"]
    assert found["best"]["epoch_chosen_by"] == "map_micro on the reported clips"
    assert found["last"]["epoch_chosen_by"] == "being the last"


def test_of_several_configs_the_first_names_the_run_and_later_ones_win(dataset):
    Path("second.yaml").write_text("{training: {epochs: 1, lr: 1.0e-3, weight_decay: 0.2}, model: {num_layers: 2}}\n")
    Path("third.yaml").write_text(
        "{training: {epochs: 2}, model: {num_layers: 1, num_heads: 4, dim_feedforward: 16}}\n"
    )
    configs = ["--config", str(named("rgb_positions")), "second.yaml", "--config", "third.yaml"]
    more = ["--num-workers", "0", "--device", "cpu", "--set", "model.num_heads=2", "model.normalize_inputs=true"]
    folder = main([*configs, *more])
    assert folder == Path("checkpoints/TFAM/rgb_positions/seed49")
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["model"]["fusion"] == "rgb" and config["model"]["positions"] is True  # of the first
    assert config["training"]["lr"] == 1e-3 and config["training"]["weight_decay"] == 0.2  # of the second
    assert config["training"]["epochs"] == 2 and config["model"]["num_layers"] == 1  # of the third
    assert config["model"]["num_heads"] == 2  # of --set
    ran = json.loads((folder / "metrics.json").read_text())
    assert ran["config"] == "rgb_positions" and ran["settings"]["model.normalize_inputs"] is True
    found = main(["--evaluate", str(folder / "best_model.pth"), "--device", "cpu", "--num-workers", "0"])
    assert found["map_micro"] == ran["map_micro"]
    with pytest.raises(UserError, match=r"model.num_layers 1, now it is 2"):
        main(["--config", str(named("rgb_positions")), "third.yaml", "second.yaml", *more])


def test_evaluate_gives_the_run_its_own_numbers_again(dataset, capsys):
    folder = main(command("rgb"))
    own = {path.name: path.read_bytes() for path in folder.iterdir()}
    found = main(["--evaluate", str(folder / "best_model.pth"), "--device", "cpu", "--num-workers", "0"])
    ran = json.loads((folder / "metrics.json").read_text())
    assert {key: found[key] for key in ("map_macro", "map_micro", "num_videos")} == {
        key: ran[key] for key in ("map_macro", "map_micro", "num_videos")
    }
    assert f"map_micro {ran['map_micro']:.4f}" in capsys.readouterr().out
    written = Path("TFAM/results/evaluate/rgb-seed49-best_model")
    assert (written / "predictions.csv").read_text() == (folder / "predictions.csv").read_text()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == own
    with pytest.raises(UserError, match=r"model.fusion rgb, now it is motion"):
        main(["--evaluate", str(folder / "best_model.pth"), "--set", "model.fusion=motion"])
    (dataset / "ak_val_clip_embeddings.h5").unlink()
    write_rgb(dataset / "ak_val_clip_embeddings.h5", range(9, 15), weights_sha256="bb")
    (dataset / "flow_embeddings.h5").unlink()
    with pytest.raises(UserError, match=r"weights_sha256 is aa in .*best_model.pth but bb"):
        main(["--evaluate", str(folder / "best_model.pth")])


@pytest.mark.parametrize("prefix", ["", "module."])
def test_evaluate_takes_a_published_checkpoint(dataset, prefix):
    model = build("motion", num_layers=1).eval()
    torch.save({prefix + k: v for k, v in model.state_dict().items()}, "published.pth")
    found = main(["--evaluate", "published.pth", *command("motion")])
    splits, _ = open_all(dataset, "motion")
    batch = collate([splits["val"][i] for i in range(6)])
    assert found == found | evaluate(model, [batch], F.binary_cross_entropy_with_logits, CPU, "fp32")["metrics"]
    with pytest.raises(UserError, match=r"num_layers is 1 in published.pth but 2"):
        main(["--evaluate", "published.pth", *command("motion"), "model.num_layers=2"])
    with pytest.raises(UserError, match="--config"):
        main(["--evaluate", "published.pth"])


def test_dry_run_and_limit(dataset, capsys):
    folder = main(command("motion", "--dry-run", "--limit", "2"))
    assert "2 train videos" in capsys.readouterr().out and not folder.exists()
    with pytest.raises(UserError, match="num_heads is 3"):
        main([*command("motion", "--dry-run"), "model.num_heads=3"])


def test_run_experiments_goes_on_skips_and_ends_with_the_table(dataset):
    for name in ("TFAM", "vimoclip"):
        shutil.copytree(ROOT / name, name, ignore=shutil.ignore_patterns("__pycache__", "results"))
    Path("TFAM/configs/broken.yaml").write_text("model: {fusionn: rgb}\n")
    script = Path("TFAM/run_experiments.sh")
    script.write_text(re.sub(r'(?m)^CONFIGS="[^"]*"', 'CONFIGS="rgb broken motion"', script.read_text()))
    main(command("rgb"))
    result = subprocess.run(
        ["bash", "run_experiments.sh", "--num-workers", "0", "--device", "cpu", "--set", *TINY],
        cwd="TFAM",
        env={**os.environ, "PYTHON": sys.executable, "SEEDS": "49"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1, result.stderr
    assert "rgb/seed49: finished already" in result.stdout
    assert "failed: broken/seed49" in result.stderr and "Traceback" not in result.stderr
    assert "unknown key model.fusionn; the nearest are model.fusion" in result.stderr
    assert result.stdout.index("== motion") < result.stdout.index("| config | seeds |")
    with Path("TFAM/results/table.csv").open() as file:
        assert [row["config"] for row in csv.DictReader(file)] == ["rgb", "motion"]


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--nonsense"], "unrecognized arguments: --nonsense"),
        (["--config", "nowhere.yaml"], "error: nowhere.yaml: there is no such file"),
    ],
)
def test_a_wrong_call_is_one_line_and_exit_code_2(argv, words):
    result = subprocess.run(
        [sys.executable, "-m", "TFAM.train_and_eval", *argv], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 2
    assert words in result.stderr and len(result.stderr.splitlines()) == 1


def test_help_does_not_import_torch():
    code = "import sys, TFAM.train_and_eval, TFAM.table; sys.exit('torch' in sys.modules or 'yaml' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


@pytest.mark.parametrize("argument", ["--checkpoints-dir", "--checkpoints_dir=x", "--seed", "--config"])
def test_run_experiments_refuses_what_its_table_would_not_know_of(tmp_path, argument):
    script = ROOT / "TFAM" / "run_experiments.sh"
    done = subprocess.run(["bash", str(script), argument, "x"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert "CHECKPOINTS, SEEDS or CONFIGS" in done.stderr
