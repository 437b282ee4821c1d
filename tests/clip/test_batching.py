"""Batches of one size over many videos; a frame's embedding is the same bytes in every batch."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from vimoclip import clip
from vimoclip.clip import batching


def embed_at_every_position(encoder: clip.ImageEncoder, batch_size: int) -> set[bytes]:
    """The embeddings of one frame at several positions of a batch among other frames."""
    size = encoder.config["image_size"]
    others = torch.randint(0, 256, (batch_size * 2, 3, *size), dtype=torch.uint8)
    frame = torch.randint(0, 256, (1, 3, *size), dtype=torch.uint8)
    found = set()
    for place in range(0, batch_size, max(1, batch_size // 5)):
        batches = clip.BatchEncoder(encoder.encode, batch_size)
        batches.add_frames(others[:place], lambda rows: None)
        batches.add_frames(frame, lambda rows: found.add(rows.tobytes()))
        batches.add_frames(others[place:], lambda rows: None)
        batches.flush()
    return found


@pytest.mark.parametrize("batch_size", [1, 3, 7, 16])
def test_embeddings_do_not_depend_on_the_position_in_the_batch(tiny_clip: str, batch_size: int) -> None:
    torch.manual_seed(0)
    assert len(embed_at_every_position(clip.load_encoder(tiny_clip, None), batch_size)) == 1


@pytest.mark.long
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("batch_size", [5, 16])
def test_vit_b_32_does_not_depend_on_the_position_in_the_batch(batch_size: int, threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        torch.manual_seed(0)
        encoder = clip.build_encoder(clip.encoder_config("ViT-B/32"))
        encoder.visual.eval()
        assert len(embed_at_every_position(encoder, batch_size)) == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("uneven", "taken"), [((), 4), ((4,), 5), ((4, 5, 6), 7), (range(99), 1)])
def test_the_batch_size_is_raised_until_all_positions_agree(
    uneven: Sequence[int], taken: int, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = []

    def encode(batch: torch.Tensor) -> torch.Tensor:
        sizes.append(len(batch))
        found = batch.flatten(1).float()
        if len(batch) in uneven and len(batch) > 1:
            found[-1] *= 1 + 1e-6  # as at the edge of a block of the matmul
        return found

    frames = torch.randint(1, 256, (10, 2, 2), dtype=torch.uint8)
    found: list[np.ndarray] = []
    batches = clip.BatchEncoder(encode, 4)
    batches.add_frames(frames, found.append)
    batches.flush()
    assert np.array_equal(np.concatenate(found), frames.flatten(1).float())
    assert sizes[-1] == taken
    assert ("--frame-batch-size 4" in capsys.readouterr().out) == (taken != 4)


def test_the_batch_size_is_kept_where_most_sizes_have_uneven_positions(capsys: pytest.CaptureFixture[str]) -> None:
    """As on a GPU, where the size would fall to one."""
    sizes = []

    def encode(batch: torch.Tensor) -> torch.Tensor:
        sizes.append(len(batch))
        found = batch.flatten(1).float()
        found[-1] *= 1 + 2e-7  # one unit in the last place
        return found

    batches = clip.BatchEncoder(encode, 4, may_adjust_size=False)
    batches.add_frames(torch.randint(1, 256, (8, 2, 2), dtype=torch.uint8), lambda rows: None)
    assert sizes == [4, 4, 4]
    assert "--frame-batch-size 4" in capsys.readouterr().out


def test_embeddings_do_not_depend_on_the_other_frames_of_the_batch(tiny_clip: str) -> None:
    encoder = clip.load_encoder(tiny_clip, None)
    generator = torch.Generator().manual_seed(0)
    videos = [torch.randint(0, 256, (n, 3, 32, 32), generator=generator, dtype=torch.uint8) for n in (5, 1, 19, 8, 2)]

    def encode(order: list[int], chunk_size: int) -> dict[int, np.ndarray]:
        chunks: dict[int, list[np.ndarray]] = {i: [] for i in order}
        batches = clip.BatchEncoder(encoder.encode, 8)
        for i in order:
            for chunk in videos[i].split(chunk_size):
                batches.add_frames(chunk, chunks[i].append)
        batches.flush()
        return {i: np.concatenate(parts) for i, parts in chunks.items()}

    in_order = encode([0, 1, 2, 3, 4], 32)
    reordered = encode([3, 4, 2, 0], 3) | encode([1], 1)
    for i in range(len(videos)):
        assert len(in_order[i]) == len(videos[i])
        assert np.array_equal(in_order[i], reordered[i])


def test_callbacks_are_called_in_order() -> None:
    def encode(batch: torch.Tensor) -> torch.Tensor:
        assert len(batch) == 4  # the last batch too
        return batch.flatten(1).float()

    def frames(*values: int) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.uint8).view(-1, 1)

    output: list[object] = []
    batches = clip.BatchEncoder(encode, 4)
    batches.add_frames(frames(1, 2, 3), lambda rows: output.extend(rows.ravel().tolist()))
    batches.add_callback(lambda: output.append("end of a"))
    batches.add_callback(lambda: output.append("b has failed"))
    assert output == []  # the batch is not full
    batches.add_frames(frames(4, 5), lambda rows: output.extend(rows.ravel().tolist()))
    batches.add_callback(lambda: output.append("end of c"))
    assert output == [1, 2, 3, "end of a", "b has failed", 4]
    batches.flush()
    assert output == [1, 2, 3, "end of a", "b has failed", 4, 5, "end of c"]
    batches.add_callback(lambda: output.append("d has failed"))
    assert output[-1] == "d has failed"  # at once: no frame is before it


def test_embeddings_that_are_fetched_a_batch_late_belong_to_their_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a CUDA GPU, where two batches are filled alternately."""
    monkeypatch.setattr(batching, "launched_batches", lambda device: 1)
    batches = clip.BatchEncoder(lambda batch: batch.flatten(1).float(), 4)
    frames, found = torch.arange(1, 31, dtype=torch.uint8).view(-1, 1), dict[int, list[np.ndarray]]()
    for video, chunk in enumerate(frames.split(7)):
        for part in chunk.split(3):
            batches.add_frames(part, found.setdefault(video, []).append)
    delivered = sum(len(rows) for parts in found.values() for rows in parts)
    assert delivered == 24  # of seven full batches, the last one is not fetched
    batches.flush()
    for video, chunk in enumerate(frames.split(7)):
        assert np.array_equal(np.concatenate(found[video]), chunk.float())
