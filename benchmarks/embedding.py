"""Embedding of videos, against PIL preprocessing of single frames and open_clip's forward."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.harness import BenchmarkRow, make_row, measure_peak_memory, measure_rates, product_bound, product_work
from benchmarks.inputs import BenchmarkInputs, repeat_video
from benchmarks.video_frames import (
    PLAIN_BATCH_SIZE,
    FramePipeline,
    decode_frames,
    plain_batches,
    plain_transform,
)

DECODED_CLIPS = 6
TIMED_CLIPS = 1  # 150 frames: with more, a shared machine changes its speed within a round. Accuracy is of all clips
ENCODED_FRAMES = 128  # by the encoder alone
LONG_VIDEO_REPEATS = 200  # repetitions of a clip: 20 minutes
EXTRACTION, INFERENCE = "extract_embeddings.py, ViT-B/32", "inference.py, flow videos at 224"
# ratios to float32 plain
GOALS = {"fp32": "1x on every processor", "bf16": "2.5x with AMX", "int8": "2.5x without AMX"}
DTYPES = {"fp32": "float32", "bf16": "bfloat16"}  # of the products that bound the encoder


def run(inputs: BenchmarkInputs, rounds: int) -> list[BenchmarkRow]:
    return [data_path_row(inputs, rounds), *encoder_rows(inputs, rounds), memory_row(inputs)]


# --- the data path


def data_path_row(inputs: BenchmarkInputs, rounds: int) -> BenchmarkRow:
    """Measure decoding, resizing, cropping and batching, without an encoder."""
    import torch

    from vimoclip import clip

    model, clips = inputs.clip_model(), inputs.clips()[:DECODED_CLIPS]
    transform, preprocess = plain_transform(model), clip.load_encoder(model, None).preprocess
    work: dict[str, Callable[[], float]] = {
        "plain": lambda: sum(len(batch) for path in clips for batch in plain_batches(path, transform)),
        "ours": partial(FramePipeline(preprocess, lambda batch: torch.zeros(len(batch), 1), PLAIN_BATCH_SIZE), clips),
        "decoder": lambda: decode_frames(clips),
    }
    rates = measure_rates(work, rounds)
    return make_row(
        "embedding",
        "data path of extract_embeddings.py",
        "frame",
        rates,
        bound=median(rates["decoder"]),
        bound_name="decoder with RGB output",
        goal="4x, 75 % of the bound",
    )


# --- with the encoder


def measured_precisions() -> list[str]:
    """Return fp32, int8, and bf16 if the processor computes in it."""
    from vimoclip.runtime import processor

    has_bf16 = {"avx512_bf16", "amx_bf16"} & set(processor.features())
    return ["fp32", *(["bf16"] if has_bf16 else []), "int8"]


class PlainVideos:
    """Videos that are decoded as a whole, prepared by PIL frame by frame, and encoded by open_clip in float32."""

    def __init__(self, paths: Sequence[Path], encoder: Any, transform: Callable[[Any], Any]):
        self.paths, self.encoder, self.transform = paths, encoder, transform

    def end_to_end(self) -> float:
        return self._encode(batch for path in self.paths for batch in plain_batches(path, self.transform))

    def encoder_alone(self) -> float:
        batch = self.encoder.preprocess.normalize(random_batch(PLAIN_BATCH_SIZE, self.encoder))
        return self._encode(batch for _ in range(ENCODED_FRAMES // PLAIN_BATCH_SIZE))

    def _encode(self, batches: Iterable[Any]) -> float:
        import torch

        with torch.inference_mode():
            return sum(len(self.encoder.visual(batch)) for batch in batches)


class EncodedVideos:
    """Videos that a script reads and encodes, with its defaults on a CPU."""

    def __init__(self, paths: Sequence[Path], encoder: Any, precision: str):
        import torch

        from vimoclip.runtime import defaults

        cpu = torch.device("cpu")
        self.paths, self.encoder = paths, encoder.freeze(cpu, precision)
        self.batch_size = defaults.frame_batch_size("auto", cpu, precision)
        self.pipeline = FramePipeline(encoder.preprocess, encoder.encode, self.batch_size)

    def end_to_end(self) -> float:
        return self.pipeline(self.paths)

    def encoder_alone(self) -> float:
        batch = random_batch(self.batch_size, self.encoder)
        return sum(len(self.encoder.encode(batch)) for _ in range(ENCODED_FRAMES // self.batch_size))


def random_batch(frames: int, encoder: Any) -> Any:
    """Return (n, 3, S, S) uint8."""
    import torch

    return torch.randint(0, 256, (frames, 3, *encoder.preprocess.size), dtype=torch.uint8)


def encoder_rows(inputs: BenchmarkInputs, rounds: int) -> list[BenchmarkRow]:
    """Measure both scripts end to end, and the encoder alone, in the precisions that the processor has."""
    from vimoclip import clip, moclip

    model = inputs.clip_model()
    clips, flows = inputs.clips()[:TIMED_CLIPS], sorted(inputs.flows(224).glob("*.mp4"))[:TIMED_CLIPS]
    reference, transform = clip.load_encoder(model, None), plain_transform(model)
    student = moclip.MoCLIP(clip.load_encoder(model, None).visual, reference.config["embed_dim"], 3, 0.1)
    plain = {EXTRACTION: PlainVideos(clips, reference, transform), INFERENCE: PlainVideos(flows, reference, transform)}
    ours = {
        (EXTRACTION, precision): EncodedVideos(clips, clip.load_encoder(model, None), precision)
        for precision in measured_precisions()
    }
    student_encoder = clip.ImageEncoder(student.visual_encoder, reference.config)
    ours[INFERENCE, "fp32"] = EncodedVideos(flows, student_encoder, "fp32")
    work: dict[str, Callable[[], float]] = {f"plain {script}": videos.end_to_end for script, videos in plain.items()}
    work |= {f"{script} {precision}": videos.end_to_end for (script, precision), videos in ours.items()}
    work |= {f"alone {precision}": videos.encoder_alone for (_, precision), videos in ours.items()}
    work["plain alone"] = plain[EXTRACTION].encoder_alone
    for precision in DTYPES.keys() & set(measured_precisions()):
        work |= product_work(DTYPES[precision])
    rates = measure_rates(work, rounds)
    rows = list[BenchmarkRow]()
    for (script, precision), videos in ours.items():
        row = compare(rates, f"plain {script}", f"{script} {precision}", f"{script} --precision {precision}")
        row.bound, row.bound_name = median(rates[f"alone {precision}"]), "the encoder alone"
        row.goal = f"{GOALS[precision]}; 94 % of the bound"
        if precision != "fp32":
            mean, minimum = cosine_agreement(reference, videos.encoder, inputs.clips())
            row.note = f"cosine to fp32 {mean:.5f} in the mean, at least {minimum:.5f}"
        rows.append(row)
    return rows + [
        encoder_row(rates, precision, flops_per_frame(reference.visual)) for precision in measured_precisions()
    ]


def encoder_row(rates: dict[str, list[float]], precision: str, flop: float) -> BenchmarkRow:
    """Return the row of the encoder alone. `flop`: per frame."""
    row = compare(rates, "plain alone", f"alone {precision}", f"encoder alone, {precision}")
    if dtype := DTYPES.get(precision):
        row.bound, row.bound_name = product_bound(rates, dtype) / flop, f"matrix products of {dtype}"
        row.goal = "85 % of the bound"
    return row


def compare(rates: dict[str, list[float]], plain: str, ours: str, what: str) -> BenchmarkRow:
    """Return a row that compares the rates named `plain`, which are of float32, and `ours`."""
    return make_row("embedding", what, "frame", {"plain": rates[plain], "ours": rates[ours]})


def flops_per_frame(visual: Any) -> float:
    """Return the FLOP of a ViT's matrix products for one frame, with only the class token in the last block."""
    width, layers = visual.conv1.out_channels, len(visual.transformer.resblocks)
    patches = visual.grid_size[0] * visual.grid_size[1]
    tokens, inner = patches + 1, visual.transformer.resblocks[0].mlp.c_fc.out_features
    block_weights = 4 * width**2 + 2 * width * inner
    block = tokens * block_weights + 2 * tokens**2 * width
    last_block = tokens * 2 * width**2 + (block_weights - 2 * width**2) + 2 * tokens * width
    patch_and_output = patches * visual.conv1.weight[0].numel() * width + visual.proj.numel()
    return 2.0 * ((layers - 1) * block + last_block + patch_and_output)


def cosine_agreement(first: Any, second: Any, clips: Sequence[Path]) -> tuple[float, float]:
    """Return the (mean, minimum) cosine of two encoders' embeddings, on one batch of each clip."""
    import torch

    from vimoclip import video

    cosines = []
    for path in clips:
        frames = next(iter(video.VideoReader(path, PLAIN_BATCH_SIZE))).frames
        prepared = first.preprocess(frames)
        cosines.append(torch.cosine_similarity(first.encode(prepared), second.encode(prepared)))
    return float(torch.cat(cosines).mean()), float(torch.cat(cosines).min())


# --- memory


def memory_row(inputs: BenchmarkInputs) -> BenchmarkRow:
    """Measure the peak memory of a 20-minute video, against a 6-second one."""
    clip_path = inputs.clips()[0]
    long_path = inputs.folder / "long.mp4"
    if not long_path.is_file():
        repeat_video(clip_path, long_path, LONG_VIDEO_REPEATS)
    short_peak, long_peak = (
        measure_peak_memory(embed_one_video, path, inputs.clip_model()) for path in (clip_path, long_path)
    )
    return BenchmarkRow(
        "embedding",
        "peak memory on a 20-minute video (ours) and a 6-second one (plain)",
        "frame",
        memory_plain=short_peak,
        memory_ours=long_peak,
        goal="within 10 %",
        note=f"{long_peak / short_peak - 1:+.0%}",
    )


def embed_one_video(path: Path, model: str) -> float:
    """Do the script's work for one video, but encode only the first batches."""
    import torch

    from vimoclip import clip

    encoder, num_batches = clip.load_encoder(model, None), 0

    def encode_first(batch: Any) -> Any:
        nonlocal num_batches
        num_batches += 1
        return encoder.encode(batch) if num_batches < 12 else torch.zeros(len(batch), 512)

    return FramePipeline(encoder.preprocess, encode_first, PLAIN_BATCH_SIZE)([path])
