"""Streams and events of the simulated card: what waits for what, and which operations wait for too little."""

import contextlib
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

HOST = -1  # in place of a stream's number: the CPU
Clocks = dict[int, int]  # number of a stream -> how many of its operations are complete


@dataclass
class _Memory:
    """The stream that a tensor's memory belongs to, and the operations that used it last, by stream.

    `home`: None for pinned memory, which is only used again when all copies are complete."""

    home: int | None
    recorded: set[int] = field(default_factory=set)  # streams of record_stream
    writes: Clocks = field(default_factory=dict)
    reads: Clocks = field(default_factory=dict)


class StreamOrder:
    """The order of operations on all streams. `races`: operations that don't wait for one that they depend on.

    `waits`: for each wait of the CPU for an event, the operations on the card that followed the event by then."""

    def __init__(self) -> None:
        self.current, self.num_streams = 0, 1
        self.races: list[str] = []
        self.waits: list[int] = []
        self._started: Clocks = {0: 0}
        self._known: dict[int, Clocks] = {0: {}, HOST: {}}  # what precedes the next operation of a stream
        self._memories: dict[int, _Memory] = {}

    @property
    def used(self) -> int:
        """Number of streams with an operation."""
        return sum(map(bool, self._started.values()))

    def new_stream(self) -> int:
        self.num_streams += 1
        self._started[self.num_streams - 1], self._known[self.num_streams - 1] = 0, {}
        return self.num_streams - 1

    def track(self, storage: torch.UntypedStorage, is_pinned: bool = False) -> None:
        """Follow the uses of memory of the card, or of pinned memory, until it is freed."""
        key = storage._cdata
        if key not in self._memories:
            self._memories[key] = _Memory(None if is_pinned else self.current)
            weakref.finalize(storage, self._free, key).atexit = False

    def run(self, name: str, reads: list[int], writes: list[int]) -> None:
        """Add an operation to the current stream. `reads`, `writes`: keys of storages; others are ignored."""
        stream = self.current
        _merge(self._known[stream], self._known[HOST])
        self._started[stream] += 1
        self._known[stream][stream] = self._started[stream]
        for keys, conflicting, used in ((reads, ("writes",), "reads"), (writes, ("writes", "reads"), "writes")):
            for memory in (self._memories[key] for key in keys if key in self._memories):
                if not all(self._precedes(getattr(memory, uses), stream) for uses in conflicting):
                    self.races.append(f"{name} on stream {stream}")
                getattr(memory, used)[stream] = self._started[stream]

    def read_on_cpu(self, storage: torch.UntypedStorage) -> None:
        """The CPU reads pinned memory."""
        memory = self._memories.get(storage._cdata)
        if memory and not self._precedes(memory.writes, HOST):
            self.races.append("the CPU reads memory before the copy is complete")

    def record_stream(self, storage: torch.UntypedStorage, stream: int) -> None:
        self._memories[storage._cdata].recorded.add(stream)

    def record(self, stream: int) -> Clocks:
        """Return what is complete when an event is that is recorded on a stream now."""
        return {**self._known[HOST], **self._known[stream], stream: self._started[stream]}

    def wait(self, waiting: int, event: Clocks) -> None:
        """Let a stream, or the CPU, wait for an event."""
        if waiting == HOST:
            self.waits.append(sum(started - event.get(stream, 0) for stream, started in self._started.items()))
        _merge(self._known[waiting], event)

    def _precedes(self, uses: Clocks, waiting: int) -> bool:
        return all(self._known[waiting].get(stream, 0) >= clock for stream, clock in uses.items())

    def _free(self, key: int) -> None:
        """Memory goes back to its stream, which may use it at once."""
        memory = self._memories.pop(key)
        if memory.home is None:
            return
        uses = {s: clock for uses in (memory.writes, memory.reads) for s, clock in uses.items()}
        unknown = {s: clock for s, clock in uses.items() if not self._precedes({s: clock}, HOST)}
        if not self._precedes({s: c for s, c in unknown.items() if s not in memory.recorded}, memory.home):
            self.races.append("memory is freed while another stream uses it")


def _merge(clocks: Clocks, others: Clocks) -> None:
    for stream, clock in others.items():
        clocks[stream] = max(clocks.get(stream, 0), clock)


class FakeStream:
    """In place of torch.cuda.Stream."""

    def __init__(self, order: StreamOrder, number: int | None = None):
        self._order = order
        self.number = order.new_stream() if number is None else number
        self.device = torch.device("cuda:0")

    def wait_event(self, event: "FakeEvent") -> None:
        self._order.wait(self.number, event.complete)

    def wait_stream(self, stream: "FakeStream") -> None:
        self._order.wait(self.number, self._order.record(stream.number))

    def record_event(self, event: "FakeEvent | None" = None) -> "FakeEvent":
        event = event or FakeEvent(self._order)
        event.record(self)
        return event

    def synchronize(self) -> None:
        self._order.wait(HOST, self._order.record(self.number))


class FakeEvent:
    """In place of torch.cuda.Event."""

    def __init__(self, order: StreamOrder, **options: Any):
        self._order = order
        self.complete: Clocks = {}

    def record(self, stream: FakeStream | None = None) -> None:
        self.complete = self._order.record(self._order.current if stream is None else stream.number)

    def wait(self, stream: FakeStream | None = None) -> None:
        self._order.wait(self._order.current if stream is None else stream.number, self.complete)

    def synchronize(self) -> None:
        self._order.wait(HOST, self.complete)

    def query(self) -> bool:
        return True

    def elapsed_time(self, end: "FakeEvent") -> float:
        return 1.0


@contextlib.contextmanager
def use_stream(order: StreamOrder, stream: FakeStream | None) -> Iterator[None]:
    """In place of torch.cuda.stream."""
    before = order.current
    order.current = before if stream is None else stream.number
    try:
        yield
    finally:
        order.current = before
