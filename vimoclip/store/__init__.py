"""Embeddings of videos in HDF5: crash-safe writer, reader, verification. The only user of h5py.

A file has one group per video: `embeddings` (T, D), `frame_indices` (T,), `timestamps` (T,) in seconds, for RGB also
`labels` (C,); attributes `total_frames`, `original_frames`, `fps`. The settings are attributes of the root.

During extraction each finished video is a part in `<output>.parts/`. The parts are then merged in the order of their
keys and the output is published atomically: its bytes do not depend on interruptions."""

from vimoclip.store.part_files import PartWriter
from vimoclip.store.reader import EmbeddingReader, rgb_embeddings_path, verify
from vimoclip.store.writer import SCHEMA, EmbeddingWriter

__all__ = [
    "SCHEMA",
    "EmbeddingReader",
    "EmbeddingWriter",
    "PartWriter",
    "rgb_embeddings_path",
    "verify",
]
