"""The only user of h5py: embeddings of videos in HDF5. Schema, crash-safe writer, reader, verify.

A file's root holds one group a video: `embeddings` (T, D), `frame_indices` (T,), `timestamps` (T,) in seconds, for RGB
also `labels` (C,); attributes `total_frames`, `original_frames`, `fps`. What made it stands in the root's attributes.

While a file is being made, each finished video is a part in `<output>.parts/`; the output appears, whole, when they
are put together, in the order of their keys: the same bytes however often the run was stopped."""

from vimoclip.store.part_files import Part
from vimoclip.store.reader import Reader, rgb_path, verify
from vimoclip.store.writer import SCHEMA, Writer, done

__all__ = ["SCHEMA", "Part", "Reader", "Writer", "done", "rgb_path", "verify"]
