"""Batches of one size over many videos."""

import numpy as np
import torch

from vimoclip import clip


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
