"""Who works on one output: a process alone, those that torchrun started, or one shard of a job array.

Processes of torchrun know of each other, and each takes the next video when it is ready for it. Shards share nothing
but the files, so which videos are whose follows from the videos' sizes."""

import hashlib
import heapq
import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from vimoclip.cli import Report
from vimoclip.errors import UserError
from vimoclip.extraction.manifest import source_state
from vimoclip.io import atomic, lock
from vimoclip.runtime.distributed import Group

T = TypeVar("T")


class NotYet(UserError):
    """Some videos are still to be done."""


@dataclass(frozen=True)
class Crew:
    """This process among those that work on an output. `shard`: (i, n) of the i-th of n, from 1."""

    group: Group = field(default_factory=Group)
    shard: tuple[int, int] | None = None

    @property
    def whole(self) -> bool:
        """Whether this process has the output to itself, so that it puts it together."""
        return self.group.main and self.shard is None

    @property
    def worker(self) -> str:
        """Its name, like 2-of-8; empty for the one that has the output to itself."""
        number, of = self.shard or (1, 1)
        place = (number - 1) * self.group.size + self.group.rank + 1
        return "" if self.whole else f"{place}-of-{of * self.group.size}"

    def lock(self, output: Path) -> AbstractContextManager[None]:
        """Keep others away from the output, or from this shard of it. Raises UserError."""
        if not self.group.main:
            return nullcontext()  # what rank 0 holds is held for all
        return lock.only_shard(output, *self.shard) if self.shard else lock.only_process(output)

    def first(self, make: Callable[[], T]) -> T:
        """What `make` gives, called by rank 0, and when that is done by the others: it may write."""
        made = [make()] if self.group.main else []
        self.group.barrier()
        return made[0] if made else make()

    def share(self, sources: Mapping[str, Path]) -> dict[str, Path]:
        """The videos that are this shard's: the largest that is left goes to the shard with the fewest bytes so far.

        The same in every shard as long as the files are."""
        if self.shard is None:
            return dict(sources)
        number, of = self.shard
        sizes = {video: source_state(path)["size"] or 0 for video, path in sources.items()}
        shards = [(0.0, i) for i in range(1, of + 1)]  # (bytes, shard), a heap
        mine = set()
        for video in sorted(sizes, key=lambda v: (-sizes[v], v)):
            so_far, i = heapq.heappop(shards)
            heapq.heappush(shards, (so_far + max(1, sizes[video]), i))
            mine |= {video} if i == number else set()
        return {video: path for video, path in sources.items() if video in mine}

    def check_shares(self, output: Path, sources: Mapping[str, Path]) -> None:
        """Raise UserError where the videos aren't those that the shards began with: then shares would overlap.

        Who has the output to itself forgets what they began with."""
        noted = atomic.beside(output, ".shards")
        if self.shard and self.group.main:
            sizes = sorted((video, source_state(path)["size"]) for video, path in sources.items())
            now = hashlib.sha256(json.dumps(sizes).encode()).hexdigest()
            noted.parent.mkdir(parents=True, exist_ok=True)
            if not atomic.write_text_once(noted, now) and noted.read_text(encoding="utf-8") != now:
                raise UserError(
                    "the videos, or --limit, have changed since the shards began",
                    "wait until none works, then delete this file",
                    path=noted,
                )
        elif self.whole:
            noted.unlink(missing_ok=True)

    def merge_as_last(self, merge: Callable[[], Report]) -> Report:
        """What gathering all shards' work gives, beside this one's own.

        Where another one is at work still, or gathers it already, that is said, and it is left to that one."""
        try:
            found = merge()
        except (lock.Held, NotYet) as error:
            print(f"left to a shard that is still at work: {error}", flush=True)
            return Report()
        return replace(found, already=0, not_retried=0, changed=[])


ALONE = Crew()
