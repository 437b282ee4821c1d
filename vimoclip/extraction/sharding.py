"""Distribution of the videos of one output: one process, the ranks of torchrun, or the shards of a job array.

Ranks communicate, and each claims the next video when it is free. Shards share only the file system, so videos are
assigned to shards by file size."""

import hashlib
import heapq
import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from vimoclip.cli import RunReport
from vimoclip.errors import UserError
from vimoclip.extraction.manifest import stat_source
from vimoclip.io import atomic, lock
from vimoclip.runtime.distributed import ProcessGroup

T = TypeVar("T")


class IncompleteOutputError(UserError):
    """Raised if videos of the output are pending."""


@dataclass(frozen=True)
class WorkerContext:
    """Rank and shard of this process among those that write one output. `shard`: (i, n), i from 1 to n."""

    group: ProcessGroup = field(default_factory=ProcessGroup)
    shard: tuple[int, int] | None = None

    @property
    def merges_output(self) -> bool:
        """Whether this process writes the final file and manifest: rank 0 of a run without shards."""
        return self.group.is_main and self.shard is None

    @property
    def worker_name(self) -> str:
        """A name like 2-of-8; empty for the process that merges the output."""
        index, count = self.shard or (1, 1)
        number = (index - 1) * self.group.size + self.group.rank + 1
        return "" if self.merges_output else f"{number}-of-{count * self.group.size}"

    def lock(self, output: Path) -> AbstractContextManager[None]:
        """Lock the output, or this shard of it. Raises UserError if another process holds the lock."""
        if not self.group.is_main:
            return nullcontext()  # rank 0 holds the lock for all ranks
        return lock.shard_lock(output, *self.shard) if self.shard else lock.exclusive_lock(output)

    def run_rank0_first(self, function: Callable[[], T]) -> T:
        """Call a function that may write files on rank 0, then on the other ranks; return its result."""
        results = [function()] if self.group.is_main else []
        self.group.barrier()
        return results[0] if results else function()

    def assigned_videos(self, sources: Mapping[str, Path]) -> dict[str, Path]:
        """Return the videos of this shard: each video, largest first, goes to the shard with the fewest bytes so far.

        All shards compute the same assignment if the files do not change."""
        if self.shard is None:
            return dict(sources)
        index, count = self.shard
        sizes = {video: stat_source(path)["size"] or 0 for video, path in sources.items()}
        loads = [(0.0, i) for i in range(1, count + 1)]  # heap of (bytes, shard)
        assigned = set()
        for video in sorted(sizes, key=lambda v: (-sizes[v], v)):
            load, i = heapq.heappop(loads)
            heapq.heappush(loads, (load + max(1, sizes[video]), i))
            assigned |= {video} if i == index else set()
        return {video: path for video, path in sources.items() if video in assigned}

    def check_shard_inputs(self, output: Path, sources: Mapping[str, Path]) -> None:
        """Raise UserError if the videos differ from those of the first shard: assignments would overlap.

        A run without shards deletes the record of the inputs."""
        record = atomic.sidecar_path(output, ".shards")
        if self.shard and self.group.is_main:
            sizes = sorted((video, stat_source(path)["size"]) for video, path in sources.items())
            digest = hashlib.sha256(json.dumps(sizes).encode()).hexdigest()
            record.parent.mkdir(parents=True, exist_ok=True)
            if not atomic.write_text_exclusive(record, digest) and record.read_text(encoding="utf-8") != digest:
                raise UserError(
                    "the videos, or --limit, have changed since the shards began",
                    "wait until all shards have ended, then delete this file",
                    path=record,
                )
        elif self.merges_output:
            remove_shard_record(output)

    def merge_if_last(self, merge: Callable[[], RunReport]) -> RunReport:
        """Merge all shards and return the results of the others; print a line instead if another shard still runs."""
        try:
            report = merge()
        except (lock.LockHeldError, IncompleteOutputError) as error:
            print(f"not merged, as another shard still runs: {error}", flush=True)
            return RunReport()
        return replace(report, already_done=0, not_retried=0, changed=[])


def remove_shard_record(output: Path) -> None:
    """Delete the record of the shards' inputs."""
    atomic.sidecar_path(output, ".shards").unlink(missing_ok=True)


SINGLE_PROCESS = WorkerContext()
