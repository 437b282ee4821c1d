"""--evaluate: checkpoints of our own, published ones and malformed ones."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tests.tfam.helpers import CPU, build_model, open_train_val, read_csv, read_json, train_command, write_rgb
from TFAM.data import collate
from TFAM.loops import evaluate
from TFAM.train_and_eval import main
from vimoclip.errors import UserError
from vimoclip.training.checkpoint import save_checkpoint


def test_checkpoint_with_malformed_config_is_refused(dataset):
    path = main(train_command()) / "best_model.pth"
    content = torch.load(path, weights_only=True)
    malformed: list[dict[str, Any]] = [
        {"config": 3},
        {"config": {"training": 1, "model": 2, "inputs": 3}},
        {"config": {"training": {}, "model": {"num_heads": "x"}, "inputs": {}}},
        {"config": {"training": {}, "model": {"depth": 9}, "inputs": {}}},
        {"config": {"training": {}, "model": {}, "inputs": {"rgb": [1]}}},
        {"config": {"training": {}, "model": {}, "inputs": {}, "data": {"motion": {}}}},
        {"class_names": "abc"},
        {"class_names": [1, {}]},
    ]
    for changes in malformed:
        save_checkpoint(path, content | changes)
        with pytest.raises(UserError) as error:
            main(["--evaluate", str(path), "--num-workers", "0", "--device", "cpu"])
        assert len(str(error.value).splitlines()) == 1, changes


def test_evaluate_reproduces_the_metrics_of_the_run(selection_dataset, capsys):
    folder = main(train_command("rgb"))
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    evaluated = main(["--evaluate", str(folder / "best_model.pth"), "--device", "cpu", "--num-workers", "0"])
    trained = read_json(folder / "metrics.json")
    assert all(evaluated[key] == trained[key] for key in ("map_macro", "map_micro", "num_videos", "protocol"))
    assert f"map_micro {trained['map_micro']:.4f}" in capsys.readouterr().out
    output = Path("TFAM/results/evaluate/rgb-seed49-best_model")
    assert (output / "predictions.csv").read_text() == (folder / "predictions.csv").read_text()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == files
    with pytest.raises(UserError) as error:
        main(["--evaluate", str(folder / "best_model.pth"), "--set", "model.fusion=motion"])
    assert all(text in error.value.problem for text in ("model.fusion", "rgb", "motion"))
    write_rgb(selection_dataset / "ak_val_clip_embeddings.h5", range(9, 15), weights_sha256="bb")
    (selection_dataset / "flow_embeddings.h5").unlink()
    with pytest.raises(UserError) as error:
        main(["--evaluate", str(folder / "best_model.pth")])
    assert all(text in error.value.problem for text in ("weights_sha256", "aa", "bb", "best_model.pth"))


@pytest.mark.parametrize("pooling", ["masked", "padded_mean"])
def test_predictions_depend_on_the_batch_with_padded_mean_only(dataset: Path, pooling: str) -> None:
    folder = main([*train_command("concat_time"), f"model.pooling={pooling}"])
    evaluate_best = ["--evaluate", str(folder / "best_model.pth"), "--device", "cpu", "--num-workers", "0"]

    def probabilities(path: Path) -> list[float]:
        return [float(value) for row in read_csv(path) for name, value in row.items() if name != "video_id"]

    trained = probabilities(folder / "predictions.csv")
    output = Path("TFAM/results/evaluate/concat_time-seed49-best_model/predictions.csv")
    main(evaluate_best)
    assert probabilities(output) == trained
    main([*evaluate_best, "--set", "training.batch_size=1"])
    difference = max(abs(one - other) for one, other in zip(probabilities(output), trained, strict=True))
    assert (difference > 1e-5) == (pooling == "padded_mean")
    main([*evaluate_best, "--dry-run"])


@pytest.mark.parametrize("prefix", ["", "module."])
def test_evaluate_accepts_a_published_checkpoint(dataset, prefix):
    model = build_model("motion", num_layers=1).eval()
    torch.save({prefix + k: v for k, v in model.state_dict().items()}, "published.pth")
    metrics = main(["--evaluate", "published.pth", *train_command("motion")])
    splits, _ = open_train_val(dataset, "motion")
    batch = collate([splits["val"][i] for i in range(6)])
    assert metrics == metrics | evaluate(model, [batch], F.binary_cross_entropy_with_logits, CPU, "fp32").metrics
    with pytest.raises(UserError) as error:
        main(["--evaluate", "published.pth", *train_command("motion"), "model.num_layers=2"])
    assert "num_layers" in error.value.problem and "published.pth" in error.value.problem
    with pytest.raises(UserError) as error:
        main(["--evaluate", "published.pth"])
    assert error.value.path == "published.pth" and "--config" in error.value.hint
