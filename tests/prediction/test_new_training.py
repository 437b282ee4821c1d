"""From a model folder to embeddings of new clips, and to a training that starts from its weights."""

import importlib
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.prediction.helpers import read_json
from TFAM import train_and_eval
from TFAM.initial_weights import InitialWeights
from vimoclip.errors import UserError
from vimoclip.io import predictions_csv
from vimoclip.store import EmbeddingReader

RUN = Path("checkpoints/TFAM/cross_attention/seed49")
COMMAND = ["--config", "cross_attention", "--num-workers", "0", "--device", "cpu", "--set", "training.epochs=1"]
NO_STEPS = ["training.lr=1e-30", "training.min_lr=0", "data.protocol=held_out"]


def run(command: str) -> None:
    """Run a command of an error message: name of a script, flags."""
    script, *flags = shlex.split(command.removeprefix("run "))
    lossless = ["--lossless"] if script == "extract_flows.py" else []  # like the flow of `chain`
    importlib.import_module(script.removesuffix(".py")).main([*flags, *lossless, "--num-workers", "0"])


def content(path: Path) -> str:
    return str(EmbeddingReader(path).attributes["content_sha256"])


@pytest.fixture(scope="module")
def site(chain: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with `my_model`, the exported run of `chain`, and its videos and annotations alone."""
    import export_model

    root = tmp_path_factory.mktemp("site")
    for name in ("videos", "annotations"):
        shutil.copytree(chain / "dataset" / name, root / "dataset" / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(chain)
        student = ["--student", "checkpoints/student", "--clip-model-name", "local-dir:tinyclip"]
        export_model.main([str(RUN), *student, "-o", str(root / "my_model")])
        patch.chdir(root)
        yield root


def test_model_folder_computes_the_embeddings_of_its_training_and_starts_a_run(chain: Path, site: Path) -> None:
    with pytest.raises(UserError) as error:  # names the command that computes the missing file, and then the next one
        train_and_eval.main([*COMMAND, "--init", "my_model"])
    rgb_command = error.value.hint
    with pytest.raises(UserError) as error:
        run(rgb_command)
        train_and_eval.main([*COMMAND, "--init", "my_model"])
    for command in error.value.hint.split(" and "):
        run(command)
    for name in ("ak_train_clip_embeddings.h5", "ak_val_clip_embeddings.h5", "flow_embeddings.h5"):
        assert content(site / "dataset" / "embeddings" / name) == content(chain / "dataset" / "embeddings" / name)
    folder = train_and_eval.main([*COMMAND, *NO_STEPS, "--init", "my_model"])
    expected, scores = (predictions_csv.read(path / "predictions.csv").scores for path in (chain / RUN, folder))
    assert scores == pytest.approx(expected, abs=1e-6)
    init = read_json(folder / "metrics.json")["init"]
    assert init["weights_sha256"] == read_json(Path("my_model/config.json"))["fusion"]["weights_sha256"]
    run_folder = InitialWeights(str(chain / RUN))
    assert run_folder.describe(init["shared_classes"]) == init  # nothing in it says where the model was
