"""Configs: the shipped ones, overrides, flags, invalid values."""

import json
from pathlib import Path

import pytest
import torch
import yaml

from tests.tfam.helpers import CONFIGS, CPU, SMALL_MODEL, config_path
from TFAM import config as tfam_config
from TFAM.config import from_arguments
from TFAM.model import Fusion
from TFAM.train_and_eval import build_parser
from TFAM.trainer import make_train_state
from vimoclip.errors import UserError


def test_configs_are_short_and_pairwise_different():
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
def test_controls_differ_from_cross_attention_in_motion_only(motion):
    real, control = (tfam_config.load([config_path(name)]) for name in ("cross_attention", f"cross_attention_{motion}"))
    assert {**real, "data": real["data"] | {"motion": motion}} == control


def test_defaults_are_the_published_behaviour():
    config = tfam_config.load([])
    assert config["training"]["checkpoint"] == "best" and config["data"]["motion"] == "real"
    assert config["model"]["normalize_inputs"] is False and config["model"]["positions"] is False


@pytest.mark.parametrize("motion", ["none", "shuffled"])
def test_motion_control_is_refused_for_rgb(motion):
    for paths, overrides in (
        ([config_path("rgb")], [f"data.motion={motion}"]),
        ([config_path(f"cross_attention_{motion}"), config_path("rgb")], []),
    ):
        with pytest.raises(UserError) as error:
            tfam_config.load(paths, overrides)
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
