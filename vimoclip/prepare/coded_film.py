"""A film with events that were coded in BORIS: its windows, labelled with the behaviours in them."""

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import itemgetter

from vimoclip import video
from vimoclip.annotations import ObservedClip
from vimoclip.boris import BehaviorEvent, Recording
from vimoclip.io.names import list_some
from vimoclip.io.numbers import TIME_TOLERANCE
from vimoclip.prepare.find_media import Film
from vimoclip.prepare.merge_predictions import film_key, one_line
from vimoclip.prepare.place_videos import SourceClip
from vimoclip.timeline.bouts import WindowGrid

Span = tuple[float, float]  # start and stop of a window, in seconds


@dataclass(frozen=True)
class WindowLabeler:
    """Rules for the positions and labels of windows.

    `point_margin`: seconds. `min_overlap`: a fraction. `keep_unlabelled`: keep windows without a behaviour."""

    grid: WindowGrid
    min_overlap: float = 0.5
    point_margin: float = 1.0
    keep_unlabelled: bool = True

    def event_intervals(self, events: Sequence[BehaviorEvent]) -> list[tuple[str, float, float]]:
        """Return (behaviour, start, stop) of all events; a point event covers `point_margin` on both sides of it.

        State events of one behaviour that touch or overlap are merged, also those of different subjects."""
        intervals: list[tuple[str, float, float]] = []
        spans: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for event in sorted(events, key=lambda event: event.start):
            merged = spans[event.behavior]
            if event.is_point:
                intervals.append((event.behavior, *self.extent(event)))
            elif merged and event.start <= merged[-1][1]:
                merged[-1] = merged[-1][0], max(merged[-1][1], event.stop)
            else:
                merged.append((event.start, event.stop))
        return intervals + [(name, start, stop) for name, merged in spans.items() for start, stop in merged]

    def extent(self, event: BehaviorEvent) -> tuple[float, float]:
        """Return start and stop of an event, with the margin of a point event."""
        margin = self.point_margin if event.is_point else 0.0
        return event.start - margin, event.stop + margin

    def labels(self, spans: Sequence[Span], intervals: Iterable[tuple[str, float, float]]) -> list[set[str]]:
        """Return the behaviours that overlap each window by `min_overlap` of the window, or of the shorter interval.

        A point event without margin must lie in the window. `spans`: windows of the grid, sorted by start."""
        behaviors: list[set[str]] = [set() for _ in spans]
        for name, start, stop in intervals:
            for index in self.indices_near(spans, start, stop):
                if self._overlaps(spans[index], start, stop):
                    behaviors[index].add(name)
        return behaviors

    def indices_near(self, spans: Sequence[Span], start: float, stop: float) -> range:
        """Return the indices of windows of the grid, sorted by start, that may overlap the interval."""
        first = bisect_left(spans, start - self.grid.length - TIME_TOLERANCE, key=itemgetter(0))
        return range(first, bisect_right(spans, stop + TIME_TOLERANCE, key=itemgetter(0)))

    def _overlaps(self, span: Span, start: float, stop: float) -> bool:
        if start == stop:
            return span[0] <= start < span[1]
        overlap = min(span[1], stop) - max(span[0], start)
        required = self.min_overlap * min(span[1] - span[0], stop - start)
        return overlap > TIME_TOLERANCE and overlap + TIME_TOLERANCE >= required


@dataclass
class CodedFilm:
    """A film with its events, what decodes of it, and its windows: clip -> behaviours in it."""

    film: Film
    recording: Recording
    measured: video.MeasuredVideo
    windows: dict[SourceClip, set[str]] = field(default_factory=dict)

    @property
    def observed_clip(self) -> ObservedClip:
        """The observations and the film of its clips."""
        film, num_bytes = film_key(self.film.file)
        ids = ";".join(dict.fromkeys(one_line(name) for name in self.recording.observations if name.strip()))
        return ObservedClip(ids or film, film, num_bytes)

    def add_windows(self, labeler: WindowLabeler) -> dict[str, str]:
        """Cut the film into labelled windows; return why windows are left out: entry -> reason."""
        intervals = labeler.event_intervals(list(self._events_in_film()))
        reasons: Counter[str] = Counter()
        spans = list(filter(self._is_fully_coded, labeler.grid.spans(self.measured.seconds)))
        for span, behaviors in zip(spans, labeler.labels(spans, intervals), strict=True):
            unknown = {e.behavior for e in self.recording.unknown_events if e.start < span[1] and span[0] <= e.stop}
            if unknown := unknown - behaviors:
                reasons[f"{list_some(sorted(unknown))} may be in them, but its start or stop is unknown"] += 1
            elif reason := self.measured.incomplete_reason(*span):
                reasons[reason] += 1
            elif span[1] - span[0] < labeler.grid.length - TIME_TOLERANCE and self._is_cut_short():
                reasons["the film ends before a whole window"] += 1
            elif behaviors or labeler.keep_unlabelled:
                self.windows[SourceClip(self.film.file, *span, self.film.name)] = behaviors
        left_out = [f"{count} of {len(spans)}: {reason}" for reason, count in reasons.items()]
        return {f"{self.film.source}, windows": "; ".join(left_out)} if left_out else {}

    def _is_cut_short(self) -> bool:
        """Return whether less of the film decodes than its header or BORIS says."""
        lengths = self.measured.header_seconds, self.recording.seconds or 0.0
        return max(lengths) > self.measured.seconds + self.measured.tolerance

    def _is_fully_coded(self, span: Span) -> bool:
        """Return whether an observation covers the window; without one, it is not known to be unlabelled.

        The window may end two frames behind it, as the length in BORIS may differ from that of the film."""
        first, last = span[0] + TIME_TOLERANCE, span[1] - TIME_TOLERANCE - self.measured.tolerance
        return any(start <= first and last <= stop for start, stop in self.recording.coded_intervals)

    def _events_in_film(self) -> Iterator[BehaviorEvent]:
        """Yield the events in the film, with times from 0 to its end: coded times may lie two frames outside of it."""
        seconds, tolerance = self.measured.seconds, self.measured.tolerance
        for event in self.recording.events:
            if event.stop >= -tolerance and event.start <= seconds + tolerance:
                clamped = self._clamp(event)
                if clamped.start < clamped.stop or event.start == event.stop:
                    yield clamped

    def _clamp(self, event: BehaviorEvent) -> BehaviorEvent:
        start, stop = (min(max(time, 0.0), self.measured.seconds) for time in (event.start, event.stop))
        return event._replace(start=start, stop=stop)

    def unused_events(self, labeler: WindowLabeler) -> dict[str, str]:
        """Return the behaviours with events outside of the film or of all windows, with their numbers."""
        seconds, tolerance = self.measured.seconds, self.measured.tolerance + TIME_TOLERANCE
        totals, reasons = Counter[str](), defaultdict[str, Counter[str]](Counter)
        spans = [(clip.start or 0.0, clip.end or 0.0) for clip in self.windows]
        labels = list(self.windows.values())

        def is_labelled(event: BehaviorEvent) -> bool:
            """Return whether a window has the behaviour of an event that it overlaps."""
            start, stop = labeler.extent(self._clamp(event))
            near = labeler.indices_near(spans, start, stop)
            return any(start < spans[index][1] and event.behavior in labels[index] for index in near)

        for event in self.recording.events:
            totals[event.behavior] += 1
            if event.start > seconds + tolerance or event.stop < -tolerance:
                reasons[event.behavior][f"outside of the film, which lasts {seconds:.6g} s"] += 1
            elif not is_labelled(event):
                reasons[event.behavior]["in no window"] += 1
            elif event.start < -tolerance or event.stop > seconds + tolerance:
                reasons[event.behavior][f"partly outside of the film, which lasts {seconds:.6g} s"] += 1
        return {
            f"{self.film.source}, {behavior}": "; ".join(
                f"{count} of {totals[behavior]} events {reason}" for reason, count in counts.items()
            )
            for behavior, counts in reasons.items()
        }
