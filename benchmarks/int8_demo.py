"""Average precision with `--precision int8`, on the demo's models, which `bash demo.sh` creates."""

import tempfile
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from benchmarks.harness import BenchmarkRow
from benchmarks.inputs import BenchmarkInputs
from vimoclip.errors import UserError

FUSIONS = ("rgb", "cross_attention")
METRICS = ("map_macro", "map_micro")


def run(inputs: BenchmarkInputs, rounds: int, name: str = "demo") -> list[BenchmarkRow]:
    """Evaluate models trained on fp32 with both precisions. Without the demo, print a message and return []."""
    try:
        results = {precision: evaluate_precision(name, precision) for precision in ("fp32", "int8")}
    except (UserError, OSError) as error:
        print(f"int8_demo: needs the demo's models; run bash demo.sh first ({error})")
        return []
    return [
        comparison_row(fusion, *(results[precision][fusion] for precision in ("fp32", "int8"))) for fusion in FUSIONS
    ]


def comparison_row(fusion: str, fp32: dict[str, Any], int8: dict[str, Any]) -> BenchmarkRow:
    notes = [
        f"{metric} {fp32[metric]:.4f} fp32, {int8[metric]:.4f} int8, {int8[metric] - fp32[metric]:+.4f}"
        for metric in METRICS
    ]
    return BenchmarkRow("int8_demo", f"TFAM {fusion}, seed 49, both inputs in int8", "video", note="; ".join(notes))


def evaluate_precision(name: str, precision: str) -> dict[str, dict[str, Any]]:
    """Return fusion -> metrics of its checkpoint on the validation clips, embedded with this precision."""
    import extract_embeddings
    import inference
    from TFAM import train_and_eval
    from vimoclip.store import EmbeddingReader

    data = ["--dataset-dir", f"dataset/{name}", "--dataset-name", "demo"]
    compute = ["--precision", precision, "--device", "cpu", "--frame-batch-size", "64"]
    attributes = EmbeddingReader(Path(f"dataset/{name}/embeddings/demo_val_clip_embeddings.h5")).attributes
    students = Path("checkpoints", name, "student").glob("student_epoch_*.pth")
    student = max(students, key=lambda path: int(path.stem.rpartition("_")[2]), default=None)
    if student is None:
        raise UserError(f"checkpoints/{name}/student: contains no student_epoch_<n>.pth")
    frames = ["--fps", str(attributes["sampling"]["fps"]), "--resize", attributes["resize"]]
    teacher = ["--clip-model-name", f"local-dir:checkpoints/{name}/teacher", "--split", "val"]
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(StringIO()):
        motion = f"{folder}/motion.h5"
        extract_embeddings.main([*data, *compute, *teacher, *frames, "--output-dir", folder])
        inference.main([*data, *compute, "--checkpoint-dir", str(student), "--output-h5-path", motion])
        inputs = [f"data.rgb_val_h5={folder}/demo_val_clip_embeddings.h5", f"data.motion_h5={motion}"]
        fp32 = ["--precision", "fp32", "--device", "cpu", "--num-workers", "0", "--results-dir", folder]
        best = {fusion: f"checkpoints/{name}/TFAM/{fusion}/seed49/best_model.pth" for fusion in FUSIONS}
        return {
            fusion: train_and_eval.main([*data, *fp32, "--evaluate", path, "--set", *inputs])
            for fusion, path in best.items()
        }
