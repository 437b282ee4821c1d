"""Batches of one size over many videos."""

import torch

from vimoclip import clip


def test_embeddings_do_not_depend_on_the_other_frames_of_the_batch(tiny_clip: str) -> None:
    encoder = clip.load_encoder(tiny_clip, None)
    generator = torch.Generator().manual_seed(0)
    videos = [torch.randint(0, 256, (n, 3, 32, 32), generator=generator, dtype=torch.uint8) for n in (5, 1, 19, 8, 2)]

    def encode(order: list[int], chunk_size: int) -> dict[int, torch.Tensor]:
        items = [(i, chunk) for i in order for chunk in videos[i].split(chunk_size)]
        chunks: dict[int, list[torch.Tensor]] = {}
        for i, embedded in clip.encode_stream(items, encoder.encode, 8):
            chunks.setdefault(i, []).append(embedded)
        return {i: torch.cat(parts) for i, parts in chunks.items()}

    in_order = encode([0, 1, 2, 3, 4], 32)
    reordered = encode([3, 4, 2, 0], 3) | encode([1], 1)
    for i in range(len(videos)):
        assert len(in_order[i]) == len(videos[i])
        assert torch.equal(in_order[i], reordered[i])


def test_encode_stream_keeps_the_order_of_frames_and_other_items() -> None:
    def encode(batch: torch.Tensor) -> torch.Tensor:
        assert len(batch) == 4  # the last batch too
        return batch.flatten(1).float()

    def frames(*values: int) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.uint8).view(-1, 1)

    items: list = [("a", frames(1, 2, 3)), ("a", "end"), ("b", "broken"), ("c", frames(4, 5)), ("c", "end")]
    output: list[tuple[str, object]] = []
    for key, item in clip.encode_stream(items, encode, 4):
        output += [(key, item)] if isinstance(item, str) else [(key, int(v)) for v in item]
    assert output == [
        *[("a", 1), ("a", 2), ("a", 3), ("a", "end"), ("b", "broken")],
        *[("c", 4), ("c", 5), ("c", "end")],
    ]
