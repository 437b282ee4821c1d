"""Whole stages with the scripts' own classes and defaults: the share of the time in which the GPU is busy.

Where it is below the goal, the line says which part of the host is the limit: see host.py. Weights are random."""

from collections.abc import Callable, Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

import extract_embeddings
import extract_flows
import predict
from benchmarks.gpu_checks import encoders, flow, fusion, training
from benchmarks.gpu_checks.check import Check, CheckContext, CheckSkipped, Measured, at_least
from benchmarks.gpu_checks.dataset import FPS, textured_frames, write_video
from benchmarks.gpu_checks.flow import ITERATIONS, MODEL
from benchmarks.gpu_checks.host import BUSY_LIMIT, count_frames, diagnose, processor_rate, video_parts
from benchmarks.gpu_checks.measure import synchronize
from benchmarks.gpu_checks.stage_inputs import CLIP_SIZE, FLOW_SIZE
from benchmarks.gpu_checks.trace import BUSY, record_gpu
from benchmarks.inputs import repeat_video, video_lengths, write_embeddings
from TFAM.data import pair_embeddings
from TFAM.trainer import FusionTrainer
from vimoclip import cli, store, video
from vimoclip.extraction.job import ExtractionJob, run_extraction
from vimoclip.io.written_files import WrittenFiles
from vimoclip.moclip.dataset import SegmentDataset, TrainingVideo
from vimoclip.prediction import runner
from vimoclip.runtime import defaults
from vimoclip.training.data_parallel import EpochBatchSampler, ModelReplica
from vimoclip.training.late_fetch import delay_by_one
from vimoclip.training.trainer import RunOptions, Trainer

CLIPS_PER_PROCESSOR = 8  # a processor reads a clip in about 0.2 s
SECONDS = 2.0  # of a stage that the GPU limits; its trace has 100,000 kernels
LONG_SECONDS, LONG_SIZE = 20, (1080, 1920)
ENCODED_BATCHES = 8  # so that starting the encoder counts little
WARM_UP_STEPS = 2  # until the workers of the loader are started
FUSION_VIDEOS = 400


def num_clips(context: CheckContext, rate: float | None) -> int:
    """Return the number of clips for about SECONDS at `rate` frames/s of the GPU, if it was measured."""
    inputs, limit = context.stage_inputs, CLIPS_PER_PROCESSOR * cli.num_processors()
    return max(1, min(inputs.count, limit, int((rate or 1000) * SECONDS / inputs.frames)))


def num_workers(context: CheckContext) -> int:
    """Return the workers of a loader that the scripts choose."""
    return context.pick(defaults.num_workers("auto", context.device), dry_run=0)  # starting them takes seconds


def measure_stage(context: CheckContext, unit: str, work: Callable[[], float], parts: Mapping[str, float]) -> Measured:
    """Measure a stage, which returns its number of items; `parts`: see `host.diagnose`."""
    items, seconds, thread_seconds, trace = record_gpu(work, context.device)
    measured: Measured = {f"{unit}s_per_second": items / seconds}
    if trace is None and context.device.type == "cuda":
        raise CheckSkipped("the driver forbids PyTorch's profiler, which measures when the GPU is busy")
    if trace is not None:
        measured |= {BUSY: trace.busy_seconds / seconds, "launches_per_item": trace.launches / items}
        measured |= {"bytes_to_gpu_per_item": trace.bytes_to_gpu / items}
    busy_seconds, main_rate = trace.busy_seconds if trace else seconds, items / max(thread_seconds, 1e-9)
    measured |= {f"{name}_per_processor": rate for name, rate in parts.items()} | {"main_thread": main_rate}
    busy_share, gpu_rate = busy_seconds / seconds, items / busy_seconds
    return measured | diagnose(busy_share, gpu_rate, parts, main_rate, cli.num_processors(), unit)


# --- extraction


def run_job(job: ExtractionJob, args: Any, frames_per_video: int) -> float:
    """Run a job as its script does; return the number of frames."""
    return float(run_extraction([job], args).done * frames_per_video)


def loading(context: CheckContext) -> str:
    """Return what threads do with decoded frames: the GPU resizes them itself."""
    return "copies to pinned memory" if context.device.type == "cuda" else "resizing"


def measure_embeddings(context: CheckContext) -> Measured:
    inputs = context.stage_inputs
    model = ["--clip-model-name", f"local-dir:{inputs.folder / 'clip'}"]
    clips = num_clips(context, context.value("encoder ViT-B/32 rates", "frames_per_second"))
    args = extract_embeddings.build_parser().parse_args([*inputs.flags(context, clips), *model])
    (job,) = extract_embeddings.make_jobs(args)
    encoder, _ = job.load_encoder(job.device, job.precision)  # kept for the job
    encoder.encode(encoders.smooth_frames(encoder, 2))  # the first call is slower
    parts = video_parts(inputs.clip, {loading(context): encoder.load_frames})
    return measure_stage(context, "frame", lambda: run_job(job, args, inputs.frames), parts)


def measure_flows(context: CheckContext) -> Measured:
    inputs = context.stage_inputs
    pairs = inputs.frames - 1
    clips = num_clips(context, context.value("flow share", "pairs_per_second"))
    args = extract_flows.build_parser().parse_args([*inputs.flags(context, clips), *context.dataset.flow_flags])
    job = extract_flows.make_job(args)
    render = job.load_renderer(job.device, job.precision)
    job.load_renderer = lambda device, precision: render
    batch_size = flow.default_batch_size(context)
    reader = video.VideoReader(inputs.clip, batch_size + 1, shorter_sides=(args.size,))
    frames = next(iter(reader)).frames
    flows = render(frames)
    parts = video_parts(inputs.clip, {}, (args.size,)) | {"x264 encoding": encoding_rate(inputs.folder, flows)}
    return measure_stage(context, "pair", lambda: run_job(job, args, pairs), parts)


def encoding_rate(folder: Path, images: Any) -> float:
    """Return the frames per second of processor time of writing flow videos."""
    many = np.concatenate([images] * ENCODED_BATCHES)
    return processor_rate(partial(count_frames, partial(write_video, folder / "encoded.mp4"), many))


# --- training


def measure_steps(
    context: CheckContext, unit: str, trainer: Trainer, items_per_batch: float, parts: Mapping[str, float]
) -> Measured:
    """Measure the steps of an epoch with the loader of the run, after the first ones."""
    sampler = EpochBatchSampler(len(trainer.train_set), 0, trainer.batch_size, trainer.run.group)
    replica = ModelReplica(trainer.state, loss_names=trainer.loss_names)
    steps = delay_by_one(trainer.train_steps(replica, trainer.make_loader(trainer.train_set, sampler)))
    for _ in islice(steps, context.pick(WARM_UP_STEPS, dry_run=0)):
        pass
    synchronize(context.device)
    return measure_stage(context, unit, lambda: items_per_batch * sum(1 for losses in steps if losses.count), parts)


def measure_training(context: CheckContext) -> Measured:
    """Measure train.py with flow videos at 224 pixels; embeddings come from memory."""
    inputs, frames = context.stage_inputs, context.stage_inputs.frames
    paths = inputs.link(inputs.flow_clip, "flows-224")
    clips = num_clips(context, context.value("training ViT-B/32 steps", "frames_per_second"))
    videos = [TrainingVideo(path.name, path, frames + 1) for path in paths[:clips]]
    trainer = training.make_trainer("ViT-B/32", context, videos, num_workers(context))
    parts = video_parts(inputs.flow_clip, {"resizing": trainer.objective.preprocess})
    segments = [trainer.train_set[index] for index in range(2)]
    segment_frames = trainer.train_set.segment_length
    parts["collating"] = processor_rate(lambda: float(len(SegmentDataset.collate(segments).keys) * segment_frames))
    return measure_steps(context, "frame", trainer, float(trainer.batch_size * segment_frames), parts)


def measure_fusion(context: CheckContext) -> Measured:
    """Measure TFAM on generated files of embeddings, cross_attention."""
    folder = context.folder / "fusion"
    paths = {role: folder / f"{role}.h5" for role in ("rgb_train", "rgb_val", "motion")}
    folder.mkdir()
    lengths = context.pick(video_lengths(FUSION_VIDEOS), dry_run=[3, 4, 5])
    write_embeddings(paths, lengths, num_val=1)
    motion = store.EmbeddingReader(paths["motion"])
    config = fusion.make_config(fusion.Fusion.CROSS_ATTENTION, context)
    config["data"]["annotations_dir"] = folder  # which TensorBoard would read
    splits = {
        split: pair_embeddings(store.EmbeddingReader(paths[f"rgb_{split}"]), motion, fusion.Fusion.CROSS_ATTENTION)
        for split in ("train", "val")
    }
    run = RunOptions(folder, folder, context.device, context.precision, num_workers(context))
    trainer = FusionTrainer({"config": config, "class_names": []}, splits, run)
    trainer.prepare_data()
    parts = {}
    if not trainer.resident:  # else the GPU has all embeddings
        batch = range(min(trainer.batch_size, len(trainer.train_set)))
        parts["reading HDF5"] = processor_rate(lambda: float(len(read_batch(trainer, batch).videos)))
    return measure_steps(context, "video", trainer, trainer.batch_size, parts)


def read_batch(trainer: FusionTrainer, indices: range) -> Any:
    return trainer.train_set.collate([trainer.train_set[index] for index in indices])


# --- prediction


def measure_prediction(context: CheckContext) -> Measured:
    """Predict a video of 20 s, with the small CLIP of the generated data set: most of the work is flow."""
    dataset, folder = context.dataset, context.folder / "long"
    folder.mkdir()
    height, width = context.pick(LONG_SIZE, dry_run=(48, 64))
    second, path = folder / "second.mp4", folder / "video.mp4"
    write_video(second, textured_frames(context.pick(FPS, dry_run=6), height, width, (8, 0), seed=0))
    repeat_video(second, path, context.pick(LONG_SECONDS, dry_run=1))
    args = predict.build_parser().parse_args(dataset.predict_flags(path, folder / "predictions"))
    compute = predict.resolve_compute_options(args)
    model, report = predict.load_model(args, compute), cli.RunReport()
    encoder, written = model.encoder, WrittenFiles(folder)
    assert encoder.rgb
    sides = (None, encoder.flow_side)
    parts = video_parts(second, {"resizing": encoder.rgb.load}, sides, compute.batch_size)

    def run(name: Path) -> float:
        workers = defaults.num_workers(args.num_workers, context.device)
        runner.predict_videos({name.stem: name}, folder, model, report, compute.batch_size, workers, written)
        return float(video.probe(name).frames)

    run(second)  # the first calls are slower
    return measure_stage(context, "frame", partial(run, path), parts) | {"videos_done": float(report.done)}


CHECKS = [
    Check(
        "stage extract_embeddings",
        f"extract_embeddings.py, ViT-B/32, clips of {CLIP_SIZE[1]}x{CLIP_SIZE[0]}",
        measure_embeddings,
        (BUSY_LIMIT,),
    ),
    Check(
        "stage extract_flows",
        f"extract_flows.py, {MODEL} with {ITERATIONS} iterations at {FLOW_SIZE} px",
        measure_flows,
        (BUSY_LIMIT,),
    ),
    Check("stage train", "train.py, ViT-B/32, flow videos at 224 px", measure_training, (BUSY_LIMIT,)),
    Check("stage TFAM", f"TFAM, cross_attention, {FUSION_VIDEOS} videos", measure_fusion, (BUSY_LIMIT,)),
    Check(
        "stage predict",
        f"predict.py, {LONG_SECONDS} s of 1920x1080 at {FPS} frames/s, learned flow at 224 px",
        measure_prediction,
        (at_least("videos_done", 2), BUSY_LIMIT),
    ),
]
