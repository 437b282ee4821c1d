"""Configs: the shipped ones, overrides, flags, invalid values."""

import json
from pathlib import Path

import pytest
import torch
import yaml

from tests.conftest import REPOSITORY
from tests.tfam.helpers import CPU, SMALL_MODEL, VARIANTS
from TFAM import config as tfam_config
from TFAM.config import from_arguments
from TFAM.packing import Fusion
from TFAM.train_and_eval import build_parser
from TFAM.trainer import make_train_state
from vimoclip.errors import UserError

DROPOUT = {"dropout": 0.2, "classifier_dropout": 0.3}


def load(*names: str) -> dict:
    return tfam_config.load(list(map(Path, names)))


def test_published_variants_have_their_settings():
    assert len(VARIANTS) == 26 and set(VARIANTS) > set(Fusion)
    default = load()
    small_batch = {"training": default["training"] | {"batch_size": 4}}
    expected: dict[str, dict] = {
        "rgb": {"model": {"fusion": "rgb"}},
        "motion_dropout": {"model": {"fusion": "motion", **DROPOUT}},
        "rgb_positions_dropout": {"model": {"fusion": "rgb", "positions": True, **DROPOUT}},
        "concat_embedding_positions": {"model": {"fusion": "concat_embedding", "positions": True}},
        "concat_time": {**small_batch, "model": {"fusion": "concat_time"}},
        "concat_time_positions_dropout": {
            **small_batch,
            "model": {"fusion": "concat_time", "positions": True} | DROPOUT,
        },
        "cross_attention": {},
        "cross_attention_none": {"data": {"motion": "none"}},
        "cross_attention_shuffled": {"data": {"motion": "shuffled"}},
    }
    for name, changes in expected.items():
        assert load(name) == {section: default[section] | changes.get(section, {}) for section in default}, name
    assert len({json.dumps(load(name), sort_keys=True) for name in VARIANTS}) == 26


def test_a_variant_is_found_by_name_and_by_the_path_of_its_former_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    expected = load("motion_dropout")
    paths = ["TFAM/configs/motion_dropout.yaml", "configs/motion_dropout.yaml"]
    for path in [*paths, str(tmp_path / paths[0]), str(REPOSITORY / paths[0])]:
        assert load(path) == expected, path
    Path("configs").mkdir()
    Path("configs/motion_dropout.yaml").write_text("model: {fusion: rgb}\n")  # a file wins
    assert load("configs/motion_dropout.yaml") == load("rgb") != expected
    for missing in ("motion_drop", "elsewhere/motion_dropout.yaml", "motion_dropout.yaml", "configs"):
        with pytest.raises(UserError) as error:
            load(missing)
        assert error.value.path == missing
    with pytest.raises(UserError) as error:
        load("motion_drop")
    assert "motion_dropout" in error.value.hint


def test_defaults_are_the_published_behaviour():
    config = tfam_config.load([])
    assert config["training"]["checkpoint"] == "best" and config["data"]["motion"] == "real"
    assert config["model"]["normalize_inputs"] is False and config["model"]["positions"] is False


@pytest.mark.parametrize("motion", ["none", "shuffled"])
def test_motion_control_is_refused_for_rgb(motion):
    for names, overrides in ((["rgb"], [f"data.motion={motion}"]), ([f"cross_attention_{motion}", "rgb"], [])):
        with pytest.raises(UserError) as error:
            tfam_config.load(list(map(Path, names)), overrides)
        assert all(word in error.value.problem for word in ("data.motion", motion, "model.fusion rgb"))


def test_learning_rate_that_yaml_reads_as_text_reaches_the_optimizer(tmp_path):
    (tmp_path / "slow.yaml").write_text("training: {lr: 3e-4}\n")
    assert isinstance(yaml.safe_load("lr: 3e-4")["lr"], str)
    config = tfam_config.load([tmp_path / "slow.yaml"], ["training.weight_decay=0"])
    state = make_train_state({**config, "model": config["model"] | SMALL_MODEL}, CPU, "fp32")
    assert isinstance(state.optimizer, torch.optim.AdamW)
    assert state.optimizer.param_groups[0]["lr"] == 3e-4
    assert state.optimizer.param_groups[0]["weight_decay"] == 0
    for _ in range(config["training"]["epochs"]):
        state.optimizer.step()
        state.scheduler.step()
    assert state.optimizer.param_groups[0]["lr"] == pytest.approx(1e-6)


@pytest.mark.parametrize(
    ("override", "expected"),
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
def test_invalid_setting_is_named_with_valid_values(override, expected):
    with pytest.raises(UserError) as error:
        tfam_config.load([], [override])
    assert expected in f"{error.value.problem}; {error.value.hint}"


def test_flags_reach_the_config(tmp_path):
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
    per_seed = ("--seed", "50", "--set", "data.motion_h5=motion_{seed}.h5")
    assert resolved(*per_seed)["data"]["motion_h5"] == "motion_50.h5"
