"""Embedding of videos, against PIL preprocessing of single frames and open_clip's forward."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.harness import BenchmarkRow, make_row, matmul_work, measure_peak_memory, measure_rates
from benchmarks.inputs import BenchmarkInputs, read_whole_video

TIMED_CLIPS = 6  # the accuracy of int8 is measured on all clips
BATCH_SIZE, WORKERS = 16, 2  # defaults of the scripts
LONG_VIDEO_REPEATS = 200  # repetitions of a clip: 20 minutes
ENCODER_BATCHES = 3


def run(inputs: BenchmarkInputs, rounds: int) -> list[BenchmarkRow]:
    clips = inputs.clips()[:TIMED_CLIPS]
    return [
        data_path_row(inputs.clip_model(), clips, rounds),
        *extraction_rows(inputs, clips, rounds),
        export_row(inputs, rounds),
        memory_row(inputs),
    ]


# --- the data path


def data_path_row(model: str, clips: Sequence[Path], rounds: int) -> BenchmarkRow:
    """Measure decoding, resizing, cropping and batching, without an encoder."""
    import torch

    from vimoclip import clip

    transform, preprocess = plain_transform(model), clip.load_encoder(model, None).preprocess
    work: dict[str, Callable[[], float]] = {
        "plain": lambda: sum(len(batch) for path in clips[:2] for batch in plain_batches(path, transform)),
        "ours": lambda: embed_frames(clips, preprocess, lambda batch: torch.zeros(len(batch), 1)),
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


def plain_transform(model: str) -> Callable[[Any], Any]:
    """Return open_clip's transform of PIL images."""
    import open_clip

    return open_clip.create_model_and_transforms(model)[2]


def plain_batches(path: Path, transform: Callable[[Any], Any]) -> Iterator[Any]:
    """Decode the whole video, transform each frame as a PIL image, and yield batches."""
    import torch
    from PIL import Image

    tensors = [transform(Image.fromarray(frame)) for frame in read_whole_video(path)]
    for start in range(0, len(tensors), BATCH_SIZE):
        yield torch.stack(tensors[start : start + BATCH_SIZE])


def decode_frames(clips: Sequence[Path]) -> float:
    """Decode to RGB with as many threads as the script uses; return the number of frames."""
    import av

    def decode(path: Path) -> int:
        frames = 0
        with av.open(str(path)) as container:
            container.streams.video[0].thread_type = "AUTO"
            for frame in container.decode(video=0):
                frame.to_ndarray(format="rgb24")
                frames += 1
        return frames

    with ThreadPoolExecutor(WORKERS) as pool:
        return sum(pool.map(decode, clips))


def embed_frames(clips: Sequence[Path], preprocess: Callable[[Any], Any], encode: Callable[[Any], Any]) -> float:
    """Run the pipeline of the scripts without writing files; return the number of frames."""
    from vimoclip import clip
    from vimoclip.extraction.embeddings import CHUNK_FRAMES
    from vimoclip.video import VideoReader, prefetch_videos

    counts = list[int]()
    batches = clip.BatchEncoder(encode, BATCH_SIZE)
    readers = (VideoReader(path, CHUNK_FRAMES) for path in clips)
    with closing(prefetch_videos(readers, lambda batch: preprocess(batch.frames), WORKERS)) as videos:
        for _, chunks in videos:
            for frames in chunks:
                batches.add_frames(frames, lambda rows: counts.append(len(rows)))
    batches.flush()
    return sum(counts)


# --- with the encoder


def extraction_rows(inputs: BenchmarkInputs, clips: Sequence[Path], rounds: int) -> list[BenchmarkRow]:
    """Measure fp32 and int8 end to end, and the encoder alone."""
    import torch

    from vimoclip import clip

    model = inputs.clip_model()
    plain, transform = clip.load_encoder(model, None), plain_transform(model)
    batch = torch.randint(0, 256, (BATCH_SIZE, 3, 224, 224), dtype=torch.uint8)
    encoders = {precision: clip.load_encoder(model, None).freeze(precision=precision) for precision in ("fp32", "int8")}

    def encode_alone(encode: Callable[[Any], Any]) -> float:
        return sum(len(encode(batch)) for _ in range(ENCODER_BATCHES))

    def open_clip_forward(frames: Any) -> Any:
        with torch.inference_mode():
            return clip.encode_images(plain.visual, plain.preprocess.normalize(frames))

    def plain_end_to_end() -> float:
        with torch.inference_mode():
            return sum(len(plain.visual(images)) for path in clips[:1] for images in plain_batches(path, transform))

    work: dict[str, Callable[[], float]] = {
        "plain": plain_end_to_end,
        "open_clip alone": lambda: encode_alone(open_clip_forward),
        "fp32 alone": lambda: encode_alone(encoders["fp32"].encode),
        "matmul": matmul_work(),
    }
    for precision, encoder in encoders.items():
        work[precision] = partial(embed_frames, clips[:3], encoder.preprocess, encoder.encode)
    rates = measure_rates(work, rounds)
    bound = median(rates["matmul"]) / flops_per_frame(plain.visual)
    end_to_end = median(rates["fp32"]) / median(rates["fp32 alone"])
    mean_cosine, min_cosine = cosine_agreement(plain, encoders["int8"], inputs.clips())
    return [
        embedding_row(
            "extract_embeddings.py, ViT-B/32, fp32",
            rates,
            "plain",
            "fp32",
            goal="1.5x; end to end within 6 % of the encoder alone",
            note=f"{end_to_end:.0%} of the encoder alone",
        ),
        embedding_row(
            "the same with --precision int8",
            rates,
            "plain",
            "int8",
            goal="2.5x",
            note=f"cosine to fp32 {mean_cosine:.5f} in the mean, at least {min_cosine:.5f}",
        ),
        embedding_row(
            "encoder alone, fp32", rates, "open_clip alone", "fp32 alone", bound=bound, goal="85 % of the bound"
        ),
    ]


def embedding_row(
    what: str, rates: dict[str, list[float]], plain: str, ours: str, **row_arguments: Any
) -> BenchmarkRow:
    """Return a row that compares the rates named `plain` and `ours`."""
    bound_name = "matrix product of float32" if row_arguments.get("bound") else ""
    row_rates = {"plain": rates[plain], "ours": rates[ours]}
    return make_row("embedding", what, "frame", row_rates, bound_name=bound_name, **row_arguments)


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
        frames = next(iter(video.VideoReader(path, BATCH_SIZE))).frames
        prepared = first.preprocess(frames)
        cosines.append(torch.cosine_similarity(first.encode(prepared), second.encode(prepared)))
    return float(torch.cat(cosines).mean()), float(torch.cat(cosines).min())


# --- inference.py


def export_row(inputs: BenchmarkInputs, rounds: int) -> BenchmarkRow:
    """Measure z_motion of flow videos, by a student with the weights of its teacher."""
    import torch

    from vimoclip import clip, moclip

    model = inputs.clip_model()
    flows = sorted(inputs.flows(224).glob("*.mp4"))[:2]
    encoder, transform = clip.load_encoder(model, None), plain_transform(model)
    student = moclip.MoCLIP(encoder.visual, encoder.config["embed_dim"], 3, 0.1).eval()

    def plain() -> float:
        with torch.inference_mode():
            batches = (images for path in flows[:1] for images in plain_batches(path, transform))
            return sum(len(student.visual_encoder(images)) for images in batches)

    ours = clip.ImageEncoder(student.visual_encoder, encoder.config)
    rates = measure_rates({"plain": plain, "ours": lambda: embed_frames(flows, ours.preprocess, ours.encode)}, rounds)
    return make_row("embedding", "inference.py, flow videos at 224", "frame", rates, goal="1.5x")


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

    return embed_frames([path], encoder.preprocess, encode_first)


def repeat_video(source: Path, target: Path, times: int) -> None:
    """Write a video that repeats the packets of the source `times` times."""
    import av

    partial_path = target.with_suffix(".partial")
    with av.open(str(partial_path), "w", format="mp4") as output:
        output_stream: Any = None
        offset = 0
        for _ in range(times):
            with av.open(str(source)) as container:
                stream = container.streams.video[0]
                output_stream = output_stream or output.add_stream_from_template(stream)
                end = 0
                for packet in container.demux(stream):
                    if packet.dts is None or packet.pts is None:
                        continue
                    end = max(end, packet.pts + (packet.duration or 0))
                    packet.pts, packet.dts = packet.pts + offset, packet.dts + offset
                    packet.stream = output_stream
                    output.mux(packet)
                offset += end
    partial_path.rename(target)
