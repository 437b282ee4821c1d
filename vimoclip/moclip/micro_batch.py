"""The number of segments in one forward pass of the student's training."""

import math

import torch

from vimoclip.errors import TrainingError, is_out_of_memory
from vimoclip.moclip.dataset import SegmentBatch
from vimoclip.moclip.loops import StudentObjective, to_device
from vimoclip.moclip.model import MoCLIP
from vimoclip.runtime import seeding
from vimoclip.runtime.device import measure_memory, usable_memory
from vimoclip.training.checkpoint import parameter_bytes
from vimoclip.training.data_parallel import batch_norm_layers

# frames per micro-batch, except on a CUDA GPU: halves the memory of ViT-B/32 on 4 x 29 frames at the same speed
MICRO_BATCH_FRAMES = 32


def choose_micro_batch_size(
    requested: int | None, batch_size: int, model: MoCLIP, objective: StudentObjective, segment_length: int
) -> int:
    """Return the segments per micro-batch; by default on a CUDA GPU as many as fit, else MICRO_BATCH_FRAMES.

    Return the whole batch if the model normalises over it, since micro-batches have other statistics. Raises
    TrainingError if one segment does not fit."""
    if any(layer.training for layer in batch_norm_layers(model)):
        return batch_size
    if requested:
        return requested
    device = next(model.parameters()).device
    if device.type != "cuda":
        return max(1, MICRO_BATCH_FRAMES // segment_length)
    fitting = _count_fitting_segments(model, objective, segment_length, device)
    micro_batches = math.ceil(batch_size / fitting)
    size = math.ceil(batch_size / micro_batches)  # equal parts
    print(
        f"{micro_batches} micro-batches of {size} segments; {fitting} segments fit into the free GPU memory", flush=True
    )
    return size


def _count_fitting_segments(
    model: MoCLIP, objective: StudentObjective, segment_length: int, device: torch.device
) -> int:
    """Measure the memory of one segment's forward and backward passes; leave gradients and random state unchanged."""
    segment = to_device(_blank_segment(model, objective, segment_length), device)

    def compute_gradients() -> None:
        objective(model, segment)[1]["loss"].backward()

    random_state = seeding.get_rng_state()
    try:
        compute_gradients()  # allocates the gradients, which do not grow with the segments
        memory = measure_memory(compute_gradients, device)[1]
        moments = 2 * parameter_bytes(torch.nn.ParameterList(p for p in model.parameters() if p.requires_grad))
        fitting = int((usable_memory(device) - moments) // max(memory, 1))  # the moments of Adam are allocated later
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        fitting = 0
    finally:
        seeding.set_rng_state(random_state)
        model.zero_grad(set_to_none=True)
    if fitting < 1:
        problem = f"one segment of {segment_length} frames needs more memory than is free on {device}"
        hint = "use a smaller --sequence-length or --clip-model-name, or --freeze-encoder; or try --micro-batch-size 1"
        raise TrainingError(problem, hint)
    return fitting


def _blank_segment(model: MoCLIP, objective: StudentObjective, length: int) -> SegmentBatch:
    dim, num_classes = model.residual_mlp.fc1.in_features, model.num_classes
    flow = torch.zeros(1, length, 3, *objective.preprocess.size, dtype=torch.uint8)
    mask, labels = torch.ones(1, length, dtype=torch.bool), torch.zeros(1, num_classes)
    return SegmentBatch(flow, torch.zeros(1, length, dim), mask, labels, [""], [])
