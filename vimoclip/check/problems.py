"""What a check has found, and how it is told: as a table with a line a problem, and as JSON."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from vimoclip.errors import UserError, UserFacingError

KINDS = ("missing", "stale", "broken", "misfit", "failed")
SHOWN = 20  # of an area and kind, on the terminal


class Problem(NamedTuple):
    """`id`: of a video, or the path of a file or folder that is wrong as a whole. `cure`: what to do."""

    area: str
    id: str
    kind: str
    reason: str
    cure: str


class Note(NamedTuple):
    """What is worth a word, but no problem; `id` is empty where it is of the whole area."""

    area: str
    id: str
    reason: str


@dataclass
class Findings:
    """`entries`: area -> how many videos it has or should have; None where nothing has been made yet.

    `skipped`: area -> how many rightly have no entry. `unusable`: areas of which a file is wrong as a whole."""

    entries: dict[str, int | None] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    unusable: set[str] = field(default_factory=set)

    def wrong(self, area: str, of: object, kind: str, reason: object, hint: str = "") -> None:
        """Add a problem. An error as the reason brings its own hint, which `hint` replaces."""
        if isinstance(reason, UserFacingError):
            hint = hint or reason.hint
            elsewhere = reason.path is not None and reason.path != str(of)
            reason = f"{reason.path}: {reason.problem}" if elsewhere else reason.problem
        self.problems.append(Problem(area, one_line(of), kind, one_line(reason), one_line(hint)))

    def unfit(self, area: str, of: object, kind: str, reason: object, hint: str = "") -> None:
        """As `wrong`, of a file or folder as a whole: none of its entries is then called fine."""
        self.wrong(area, of, kind, reason, hint)
        self.unusable.add(area)

    def say(self, area: str, reason: object, of: object = "") -> None:
        """Note what is no problem."""
        self.notes.append(Note(area, one_line(of), one_line(reason)))

    def add(self, other: "Findings") -> None:
        """Take over what another has found in the same areas."""
        self.problems += other.problems
        self.notes += other.notes
        self.skipped += other.skipped
        self.unusable |= other.unusable

    def sort(self) -> None:
        """By area, then kind, in the order of the table; within these as they were found."""
        order = {area: number for number, area in enumerate(self.entries)}
        self.problems.sort(key=lambda problem: (order[problem.area], KINDS.index(problem.kind)))
        self.notes.sort(key=lambda note: order[note.area])

    @property
    def fine(self) -> bool:
        """Whether there is no problem."""
        return not self.problems

    def summary(self) -> str:
        """How many problems there are, and where."""
        areas = list(dict.fromkeys(problem.area for problem in self.problems))
        return f"{len(self.problems)} problem{'s' if len(self.problems) > 1 else ''}, in {', '.join(areas)}"

    def areas(self) -> dict[str, dict[str, int | bool]]:
        """Area -> whether it is there, entries, those that are fine, ids of each kind of problem, entries skipped."""
        ids: dict[tuple[str, str], set[str]] = defaultdict(set)
        for problem in self.problems:
            ids[problem.area, problem.kind].add(problem.id)
        found: dict[str, dict[str, int | bool]] = {}
        for area, entries in self.entries.items():
            wrong = set[str]().union(*(ids[area, kind] for kind in KINDS))
            count = 0 if area in self.unusable else max(0, (entries or 0) - len(wrong) - self.skipped[area])
            kinds = {kind: len(ids[area, kind]) for kind in KINDS}
            there = entries is not None
            found[area] = {"there": there, "entries": entries or 0, "fine": count, **kinds}
            found[area]["skipped"] = self.skipped[area]
        return found

    def as_dict(self) -> dict[str, Any]:
        """All of it, for JSON."""
        problems, notes = ([item._asdict() for item in items] for items in (self.problems, self.notes))
        return {"areas": self.areas(), "problems": problems, "notes": notes, "fine": self.fine}

    def lines(self) -> Iterator[str]:
        """For a terminal: the table, then notes and problems, the first ones of each area and kind."""
        yield from self._table()
        notes: dict[str, list[str]] = defaultdict(list)
        for note in self.notes:
            notes[note.area].append(": ".join(filter(None, (note.area, note.id, note.reason))))
        problems: dict[str, list[str]] = defaultdict(list)
        for area, of, kind, reason, cure in self.problems:
            problems[f"{area}: {kind}"].append(f"{area}: {of}: {kind}: {reason}; {cure}")
        for groups in (notes, problems):
            for group, lines in groups.items():
                yield from lines[:SHOWN]
                if len(lines) > SHOWN:
                    yield f"{group}: and {len(lines) - SHOWN} more, all of them with --json FILE"

    def _table(self) -> Iterator[str]:
        yield f"{'':12}" + "".join(f"{name:>9}" for name in ("entries", "fine", *KINDS, "skipped"))
        for area, counts in self.areas().items():
            shown = (n or ("-" if name in (*KINDS, "skipped") else 0) for name, n in counts.items() if name != "there")
            numbers = "".join(f"{number:>9}" for number in shown)
            wrong = any(counts[kind] for kind in KINDS)
            yield f"{area:12}" + (numbers if counts["there"] or wrong else "  not there yet")


def one_line(text: object) -> str:
    """A text from a file as it may be printed: an error's text spells control characters out."""
    return str(UserError(text))
