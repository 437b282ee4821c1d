"""Batch sizes and numbers of reader threads that the value `auto` of a flag stands for, by device."""

import os
from typing import Literal

import torch

from vimoclip import cli
from vimoclip.runtime import processor

Count = int | Literal["auto"]  # value of a flag
CUDA_FRAME_BATCH, CPU_FRAME_BATCH, AMX_FRAME_BATCH = 256, 16, 64  # frames
APPLE_FRAME_BATCH = 64  # its free memory, which a larger batch may not fit into, is not measured
GPU_PAIR_BATCH, CPU_PAIR_BATCH = 32, 8  # pairs of frames
CPU_WORKERS = 2  # on a CPU, models take most of the time
MAX_LOADERS = 16  # processes
OTHER_THREADS = 2  # of a process with a GPU: one launches kernels, one writes


def frame_batch_size(requested: Count, device: torch.device, precision: str) -> int:
    """Return the frames per encoder batch; fewer are used if a CUDA GPU has too little memory."""
    if requested != "auto":
        return requested
    if device.type == "cpu":
        return AMX_FRAME_BATCH if precision == "bf16" and "amx_bf16" in processor.features() else CPU_FRAME_BATCH
    return CUDA_FRAME_BATCH if device.type == "cuda" else APPLE_FRAME_BATCH


def pair_batch_size(requested: Count, device: torch.device) -> int:
    """Return the pairs of frames per batch of optical flow; fewer are used if a GPU has too little memory."""
    if requested != "auto":
        return requested
    return CPU_PAIR_BATCH if device.type == "cpu" else GPU_PAIR_BATCH


def num_workers(requested: Count, device: torch.device) -> int:
    """Return the number of threads or processes that load data: at most the number of processors.

    With a GPU, which waits for them, they are all of this process's processors but two."""
    if requested != "auto":
        return cli.limit_workers(requested)
    if device.type == "cpu":
        return min(CPU_WORKERS, cli.num_processors())
    return max(1, (cli.num_processors() - OTHER_THREADS) // _local_processes())


def loader_processes(requested: Count, device: torch.device) -> int:
    """Return the worker processes of a DataLoader, whose batches in shared memory each take as much again."""
    return num_workers(requested, device) if requested != "auto" else min(MAX_LOADERS, num_workers("auto", device))


def videos_written_at_once(device: torch.device) -> int:
    """Return the number of flow videos that are encoded at once, each in a thread.

    On a CPU, flow takes more time than encoding. RAFT at 224 pixels: 350 to 2,800 pairs/s on a GPU, while a thread of
    x264 encodes 1,100 frames/s."""
    return max(2, cli.num_processors() // (4 * _local_processes())) if device.type == "cuda" else 1


def _local_processes() -> int:
    """Return the number of torchrun's processes on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1))
