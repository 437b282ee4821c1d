"""Embedding: videos in, embeddings out, against PIL frame by frame and the tower's own forward."""

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.harness import Row, in_turn, peak_memory, products, row
from benchmarks.inputs import Inputs

CLIPS = 6  # that are timed; all are embedded for the loss by int8
BATCH, WORKERS = 16, 2  # the scripts' own
LONG = 200  # times a clip: 20 minutes
ENCODER_BATCHES = 3


def run(inputs: Inputs, rounds: int) -> list[Row]:
    clips = inputs.clips()[:CLIPS]
    return [
        data_path(inputs.clip_model(), clips, rounds),
        *extraction(inputs, clips, rounds),
        export(inputs, rounds),
        memory(inputs),
    ]


# --- the data path


def data_path(model: str, clips: Sequence[Path], rounds: int) -> Row:
    """Decode, resize, crop, batch; the encoder replaced by nothing."""
    import torch

    from vimoclip import clip

    transform, prepare = plain_transform(model), clip.load(model, None).preprocess
    work: dict[str, Callable[[], float]] = {
        "plain": lambda: sum(len(batch) for path in clips[:2] for batch in plain_batches(path, transform)),
        "ours": lambda: embedded(clips, prepare, lambda batch: torch.zeros(len(batch), 1)),
        "decoder": lambda: decoded(clips),
    }
    rates = in_turn(work, rounds)
    return row(
        "embedding",
        "data path of extract_embeddings.py",
        "frame",
        rates,
        bound=median(rates["decoder"]),
        bound_name="decoder with RGB output",
        goal="4x, 75 % of the bound",
    )


def plain_transform(model: str) -> Callable[[Any], Any]:
    """open_clip's own, for PIL images."""
    import open_clip

    return open_clip.create_model_and_transforms(model)[2]


def plain_batches(path: Path, transform: Callable[[Any], Any]) -> Iterator[Any]:
    """The whole video as PIL images, each prepared alone; then in batches."""
    import av
    import torch

    with av.open(str(path)) as container:
        images = [frame.to_image() for frame in container.decode(video=0)]
    tensors = [transform(image) for image in images]
    for start in range(0, len(tensors), BATCH):
        yield torch.stack(tensors[start : start + BATCH])


def decoded(clips: Sequence[Path]) -> float:
    """Frames of RGB, thrown away, of as many videos at a time as the script reads."""
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


def embedded(clips: Sequence[Path], prepare: Callable[[Any], Any], encode: Callable[[Any], Any]) -> float:
    """Frames that went through all that the scripts do but for the files they write."""
    from vimoclip import clip
    from vimoclip.extraction.embeddings import CHUNK
    from vimoclip.video import End, read, read_ahead

    def prepared(path: Path) -> Iterator[Any]:
        return (prepare(item) for item in read(path, CHUNK) if not isinstance(item, End))

    with closing(read_ahead((partial(prepared, path) for path in clips), WORKERS)) as ahead:
        items: Any = clip.encode_stream(ahead, encode, BATCH)
        return sum(len(rows) for _, rows in items)


# --- with the encoder


def extraction(inputs: Inputs, clips: Sequence[Path], rounds: int) -> list[Row]:
    """End to end in fp32 and int8, the encoder alone, and the other backends that are installed."""
    import torch

    from vimoclip import clip

    model = inputs.clip_model()
    plain, transform = clip.load(model, None), plain_transform(model)
    batch = torch.randint(0, 256, (BATCH, 3, 224, 224), dtype=torch.uint8)
    few = clips[:1]
    encoders = {name: clip.load(model, None) for name in ("torch", "int8", *backends())}
    for name, encoder in encoders.items():
        encoder.compute_with("torch" if name == "int8" else name, "int8" if name == "int8" else "fp32")

    def alone(encode: Callable[[Any], Any]) -> float:
        return sum(len(encode(batch)) for _ in range(ENCODER_BATCHES))

    def tower(prepared: Any) -> Any:
        with torch.inference_mode():
            return clip.embed(plain.visual, plain.preprocess.normalize(prepared))

    def plain_all() -> float:
        with torch.inference_mode():
            return sum(len(plain.visual(images)) for path in few for images in plain_batches(path, transform))

    work: dict[str, Callable[[], float]] = {"plain": plain_all, "tower": lambda: alone(tower), "products": products()}
    for name, encoder in encoders.items():
        work[f"{name} alone"] = partial(alone, encoder.encode)
    for name in ("torch", "int8"):
        work[name] = partial(embedded, clips[:3], encoders[name].preprocess, encoders[name].encode)
    rates = in_turn(work, rounds)
    bound = median(rates["products"]) / flops(plain.visual)
    end_to_end = median(rates["torch"]) / median(rates["torch alone"])
    cosine, least = agreement(plain, encoders["int8"], inputs.clips())
    rows = [
        part(
            "extract_embeddings.py, ViT-B/32, fp32",
            rates,
            "plain",
            "torch",
            goal="1.5x; end to end within 6 % of the encoder alone",
            note=f"{end_to_end:.0%} of the encoder alone",
        ),
        part("the same with --precision int8", rates, "plain", "int8", goal="2.5x", note=agrees(cosine, least)),
    ]
    for name in encoders:
        goal = "85 % of the bound" if name == "torch" else ""
        what = f"encoder alone, {'--precision int8' if name == 'int8' else f'--backend {name}'}"
        rows.append(part(what, rates, "tower", f"{name} alone", bound=bound if name != "int8" else None, goal=goal))
    return rows


def part(what: str, rates: dict[str, list[float]], plain: str, ours: str, **about: Any) -> Row:
    name = "matrix product of float32" if about.get("bound") else ""
    chosen = {"plain": rates[plain], "ours": rates[ours]}
    return row("embedding", what, "frame", chosen, bound_name=name, **about)


def backends() -> list[str]:
    """Beside torch, those that are installed."""
    return [name for name in ("onnxruntime", "openvino") if importlib.util.find_spec(name)]


def flops(visual: Any) -> float:
    """Of a ViT's matrix products, a frame, where the last block is for the class token alone."""
    width, layers = visual.conv1.out_channels, len(visual.transformer.resblocks)
    patches = visual.grid_size[0] * visual.grid_size[1]
    tokens, inner = patches + 1, visual.transformer.resblocks[0].mlp.c_fc.out_features
    each = 4 * width**2 + 2 * width * inner  # weights of a block
    block = tokens * each + 2 * tokens**2 * width
    last = tokens * 2 * width**2 + (each - 2 * width**2) + 2 * tokens * width
    ends = patches * visual.conv1.weight[0].numel() * width + visual.proj.numel()
    return 2.0 * ((layers - 1) * block + last + ends)


def agreement(first: Any, second: Any, clips: Sequence[Path]) -> tuple[float, float]:
    """Mean and least cosine of two encoders' embeddings, on a batch from each clip."""
    import torch

    from vimoclip import video

    cosines = []
    for path in clips:
        frames = next(iter(video.read(path, BATCH)))
        prepared = first.preprocess(frames)
        cosines.append(torch.cosine_similarity(first.encode(prepared), second.encode(prepared)))
    return float(torch.cat(cosines).mean()), float(torch.cat(cosines).min())


def agrees(cosine: float, least: float) -> str:
    return f"cosine to fp32 {cosine:.5f} in the mean, at least {least:.5f}"


# --- inference.py


def export(inputs: Inputs, rounds: int) -> Row:
    """z_motion of flow videos, by the student that is still the teacher; the script itself."""
    import torch

    from vimoclip import clip, moclip

    model = inputs.clip_model()
    flows = sorted(inputs.flows(224).glob("*.mp4"))[:2]
    encoder, transform = clip.load(model, None), plain_transform(model)
    student = moclip.MoCLIP(encoder.visual, encoder.config["embed_dim"], 3, 0.1).eval()

    def plain() -> float:
        with torch.inference_mode():
            batches = (images for path in flows[:1] for images in plain_batches(path, transform))
            return sum(len(student.visual_encoder(images)) for images in batches)

    ours = clip.ImageEncoder(student.visual_encoder, encoder.config)
    rates = in_turn({"plain": plain, "ours": lambda: embedded(flows, ours.preprocess, ours.encode)}, rounds)
    return row("embedding", "inference.py, flow videos at 224", "frame", rates, goal="1.5x")


# --- memory


def memory(inputs: Inputs) -> Row:
    """Of a 20-minute video beside a 6-second one: the whole script's stages, the encoder a matrix product."""
    clip_path = inputs.clips()[0]
    long = inputs.folder / "long.mp4"
    if not long.is_file():
        repeat(clip_path, long, LONG)
    short_peak, long_peak = (peak_memory(extract, path, inputs.clip_model()) for path in (clip_path, long))
    return Row(
        "embedding",
        "peak memory on a 20-minute video (ours) and a 6-second one (plain)",
        "frame",
        memory_plain=short_peak,
        memory_ours=long_peak,
        goal="within 10 %",
        note=f"{long_peak / short_peak - 1:+.0%}",
    )


def extract(path: Path, model: str) -> float:
    """What the script does for one video, but that only some frames are encoded: every 10th batch."""
    import torch

    from vimoclip import clip

    encoder, seen = clip.load(model, None), [0]

    def some(batch: Any) -> Any:
        seen[0] += 1
        return encoder.encode(batch) if seen[0] < 12 else torch.zeros(len(batch), 512)

    return embedded([path], encoder.preprocess, some)


def repeat(source: Path, target: Path, times: int) -> None:
    """A video `times` as long, of the same packets."""
    import av

    partial_path = target.with_suffix(".partial")
    with av.open(str(partial_path), "w", format="mp4") as written:
        copy: Any = None
        shift = 0
        for _ in range(times):
            with av.open(str(source)) as container:
                stream = container.streams.video[0]
                copy = copy or written.add_stream_from_template(stream)
                end = 0
                for packet in container.demux(stream):
                    if packet.dts is None or packet.pts is None:
                        continue
                    end = max(end, packet.pts + (packet.duration or 0))
                    packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, copy
                    written.mux(packet)
                shift += end
    partial_path.rename(target)
