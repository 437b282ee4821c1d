"""A long clip among short ones: the tokens of a forward pass, the results, and what is said of its cost."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import REPOSITORY
from tests.tfam.helpers import (
    CLASSES,
    CPU,
    SAMPLING,
    TEACHER,
    build_model,
    class_embeddings,
    random_clips,
    read_json,
    train_command,
    write_h5,
)
from tests.tfam.test_distributed import DETERMINISTIC, read_rows, run_two_processes
from TFAM import loops, packing, train_and_eval, trainer
from TFAM import model as fusion_model
from TFAM.data import collate
from TFAM.packing import Fusion, PackedTokens, Pooling
from vimoclip.runtime import cost_estimate
from vimoclip.training.checkpoint import TrainState
from vimoclip.training.data_parallel import ModelReplica

LENGTHS = [3, 5, 40, 4, 6, 2]


def set_bound(monkeypatch: pytest.MonkeyPatch, tokens: int) -> None:
    for module in (packing, fusion_model):
        monkeypatch.setattr(module, "PART_TOKENS", tokens)


def take_step(model: torch.nn.Module, lengths: Sequence[int], pooling: str) -> tuple[float, list[list[int]]]:
    """Take a step; return its loss and the lengths of the videos of each forward pass."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    state = TrainState(model, optimizer, scheduler, torch.amp.GradScaler("cpu", enabled=False))
    parts: list[list[int]] = []

    def record(_: torch.nn.Module, inputs: tuple[PackedTokens, ...]) -> None:
        parts.append(inputs[0].lengths)

    with_hook = model.register_forward_pre_hook(record)
    batch = collate(random_clips(lengths), pooling)
    (losses,) = loops.train_steps(ModelReplica(state), [batch], F.binary_cross_entropy_with_logits, CPU, "fp32")
    with_hook.remove()
    return losses.means()["loss"], parts


@pytest.mark.parametrize("pooling", Pooling)
@pytest.mark.parametrize("fusion", Fusion)
def test_a_step_in_parts_equals_one_pass(fusion: str, pooling: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, in_parts = build_model(fusion, pooling=pooling), build_model(fusion, pooling=pooling)
    loss, parts = take_step(whole, LENGTHS, pooling)
    assert len(parts) == 1
    scores = loops.evaluate(whole, [collate(random_clips(LENGTHS), pooling)], F.mse_loss, CPU, "fp32")
    set_bound(monkeypatch, 30)
    loss_in_parts, parts = take_step(in_parts, LENGTHS, pooling)
    if pooling == Pooling.MASKED:
        assert parts == [[3, 5], [40], [4, 6, 2]]
    else:
        assert parts == [[40]] * 6  # padding counts, so it stays
    assert loss_in_parts == pytest.approx(loss, rel=1e-6)
    for one, other in zip(whole.parameters(), in_parts.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)
    found = loops.evaluate(in_parts, [collate(random_clips(LENGTHS), pooling)], F.mse_loss, CPU, "fp32")
    assert found.videos == scores.videos
    torch.testing.assert_close(found.probabilities, scores.probabilities, atol=1e-5, rtol=1e-4)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=20), st.integers(1, 60))
def test_parts_are_bounded_and_complete(tokens: list[int], bound: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        set_bound(patch, bound)
        parts = [tokens[chosen] for chosen in packing.split_by_tokens(tokens)]
    assert [count for part in parts for count in part] == tokens
    assert all(part and (sum(part) <= bound or len(part) == 1) for part in parts)
    assert all(sum(part) + following[0] > bound for part, following in pairwise(parts))


@pytest.mark.parametrize("fusion", [Fusion.RGB, Fusion.CROSS_ATTENTION])
def test_attention_that_is_computed_again_draws_the_same_random_numbers(
    fusion: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each video is computed in one chunk: bit for bit as before."""
    models = []
    for products in (fusion_model.MAX_PRODUCTS, 200):  # each video has up to 162, the batch 550
        monkeypatch.setattr(fusion_model, "MAX_PRODUCTS", products)
        models.append(build_model(fusion, dropout=0.3, classifier_dropout=0.3))
        torch.manual_seed(1)
        take_step(models[-1], [9, 8, 7, 9], Pooling.MASKED)
    for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(one, other)


def test_attention_in_chunks_drops_the_same_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """All values are one, so each output counts the weights that are kept."""
    monkeypatch.setattr(fusion_model, "MAX_PRODUCTS", 5000)
    q, k = torch.randn(300, 2, 4), torch.randn(200, 2, 4)
    out = fusion_model.attend_in_chunks(q, k, torch.ones(200, 2, 4), 0.25)
    assert out.shape == q.shape
    assert float(out.mean()) == pytest.approx(1, abs=0.02)
    value = torch.randn(200, 2, 4)
    torch.testing.assert_close(fusion_model.attend_in_chunks(q, k, value, 0.0), fusion_model.attend(q, k, value, 0.0))


def test_products_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """No call of attention has more products than the bound, in both passes."""
    monkeypatch.setattr(fusion_model, "MAX_PRODUCTS", 400)
    sizes, plain = [], F.scaled_dot_product_attention

    def record(q: torch.Tensor, k: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
        sizes.append(q.shape[1] * q.shape[2] * k.shape[2])
        return plain(q, k, *args, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", record)
    take_step(build_model("concat_time", dropout=0.1), [40, 3], Pooling.MASKED)
    assert max(sizes) <= 400
    # 78 queries with 156 products each, two at once, and 4 queries: in 2 layers, computed again in the backward pass
    assert len(sizes) == 2 * 2 * (39 + 1)


def test_hidden_values_of_a_long_clip_are_bounded_and_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    set_bound(monkeypatch, 30)
    model, rows = build_model("rgb"), list[int]()
    model.layers[0].ffn.register_forward_hook(lambda module, inputs, output: rows.append(len(output)))  # type: ignore[union-attr,operator]
    take_step(model, [40], Pooling.MASKED)
    assert sorted(rows) == [10, 10, 30, 30]


def write_long_clip(folder: Path, frames: int = 120) -> None:
    """Replace the training files of `folder`: eight short clips, and one of `frames` frames."""
    lengths = [4, 5, 4, 5, frames, 4, 5, 4, 5]
    labels = np.eye(3, dtype=np.float32)[np.arange(9) % 3]
    common: dict[str, Any] = {"embed_dim": 8, "sampling": SAMPLING, **TEACHER}
    videos = {f"V{n:02}.mp4": class_embeddings(n, length) for n, length in enumerate(lengths)}
    attributes = {"kind": "rgb", "class_names": CLASSES, "num_classes": 3, **common}
    write_h5(folder / "ak_train_clip_embeddings.h5", videos, labels, **attributes)
    number_of = {**dict(enumerate(lengths)), **{n: 4 + n % 5 for n in range(9, 15)}}
    motion = {f"V{n:02}": class_embeddings(n, length - 1) for n, length in number_of.items()}
    write_h5(folder / "flow_embeddings.h5", motion, kind="motion", student={"teacher": TEACHER}, **common)


def test_two_processes_with_different_numbers_of_parts(dataset: Path) -> None:
    """Only one process has the long clip, so only it has several parts: the weights are those of one process."""
    write_long_clip(dataset)
    script = f"import sys; sys.path.insert(0, {str(REPOSITORY)!r})\n"
    script += "from TFAM import packing, train_and_eval\nfrom vimoclip import cli\npacking.PART_TOKENS = 40\n"
    Path("bounded.py").write_text(script + "cli.run(train_and_eval.main)\n")
    command = [*train_command(), *DETERMINISTIC]
    result = run_two_processes(["bounded.py"], [*command, "training.batch_size=3", "--checkpoints-dir", "two"])
    assert result.returncode == 0, result.stderr
    train_and_eval.main([*command, "training.batch_size=6", "--checkpoints-dir", "one"])
    one, two = (Path(name, "TFAM/cross_attention/seed49") for name in ("one", "two"))
    for name in ("metrics.csv", "predictions.csv"):
        for mine, theirs in zip(read_rows(one / name), read_rows(two / name), strict=True):
            assert mine == pytest.approx(theirs, rel=1e-4, abs=1e-5), name


def test_dry_run_names_the_longest_clip_and_does_not_train_on_it(
    dataset: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cost_estimate, "PROBE_SECONDS", 0.1)
    write_long_clip(dataset)
    seen: list[str] = []
    for module in (cost_estimate, trainer):
        monkeypatch.setattr(module, "PART_TOKENS", 40)
    plain = loops.train_steps

    def record(replica: Any, batches: Any, *args: Any) -> Any:
        def named() -> Any:
            for batch in batches:
                seen.extend(batch.videos)
                yield batch

        return plain(replica, named(), *args)

    monkeypatch.setattr(loops, "train_steps", record)
    train_and_eval.main([*train_command(), "training.batch_size=1", "--dry-run", "--report", "report.json"])
    assert len(set(seen)) > 1 and "V04.mp4" not in seen
    assert "V04.mp4, has 120 frames" in capsys.readouterr().out
    memory = read_json(Path("report.json"))["estimate"]["memory_bytes"]
    assert memory > cost_estimate.fusion_step_memory(239, 8, 1)


@pytest.mark.parametrize("is_enough", [True, False])
def test_run_says_that_the_longest_clip_needs_more_memory_than_there_is(
    is_enough: bool, dataset: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_long_clip(dataset)
    needed = cost_estimate.fusion_step_memory(239, 8, 1)
    monkeypatch.setattr(trainer, "total_memory", lambda device: needed + 1 if is_enough else needed - 1)
    train_and_eval.main(train_command())
    warnings = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning: the longest clip, ")]
    assert len(warnings) == (not is_enough)
