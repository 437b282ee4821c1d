"""The report of a check: problems and notes, formatted as a table with a line per problem, or as JSON."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from vimoclip.cli import RunReport
from vimoclip.errors import UserFacingError, escape_line

PROBLEM_KINDS = ("missing", "stale", "broken", "misfit", "failed")
MAX_LINES = 20  # per area and kind, on the terminal


class Problem(NamedTuple):
    """A problem of one entry, or of a file or folder as a whole. `id`: video id, motion key or path."""

    area: str
    id: str
    kind: str
    reason: str
    hint: str


class CheckNote(NamedTuple):
    """A remark that is not a problem. `id`: as in Problem, empty for a remark on the whole area."""

    area: str
    id: str
    reason: str


@dataclass
class CheckReport:
    """Result of a check.

    `entries`: area -> number of videos that it has or should have, None if it has not been created yet. `skipped`: area
    -> number of videos that need no entry. `unusable_areas`: areas with a problem of a whole file or folder."""

    entries: dict[str, int | None] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    notes: list[CheckNote] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    unusable_areas: set[str] = field(default_factory=set)

    def add_problem(self, area: str, entry_id: object, kind: str, reason: object, hint: str = "") -> None:
        """Add a problem of one entry. If `reason` is an error with a hint, `hint` replaces it."""
        if isinstance(reason, UserFacingError):
            hint = hint or reason.hint
            other_path = reason.path is not None and reason.path != str(entry_id)
            reason = f"{reason.path}: {reason.problem}" if other_path else reason.problem
        self.problems.append(Problem(area, escape_line(entry_id), kind, escape_line(reason), escape_line(hint)))

    def add_file_problem(self, area: str, path: object, kind: str, reason: object, hint: str = "") -> None:
        """Add a problem of a file or folder as a whole; none of the area's entries then counts as fine."""
        self.add_problem(area, path, kind, reason, hint)
        self.unusable_areas.add(area)

    def add_note(self, area: str, reason: object, entry_id: object = "") -> None:
        """Add a remark that is not a problem."""
        self.notes.append(CheckNote(area, escape_line(entry_id), escape_line(reason)))

    def merge(self, other: "CheckReport") -> None:
        """Add the problems, notes and counts of another report on the same areas."""
        self.problems += other.problems
        self.notes += other.notes
        self.skipped += other.skipped
        self.unusable_areas |= other.unusable_areas

    def sort(self) -> None:
        """Sort by area, then by kind, in the order of the table; the sort is stable."""
        order = {area: number for number, area in enumerate(self.entries)}
        self.problems.sort(key=lambda problem: (order[problem.area], PROBLEM_KINDS.index(problem.kind)))
        self.notes.sort(key=lambda note: order[note.area])

    @property
    def fine(self) -> bool:
        """Whether there is no problem."""
        return not self.problems

    def summary(self) -> str:
        """Return the number of problems and their areas."""
        areas = list(dict.fromkeys(problem.area for problem in self.problems))
        return f"{len(self.problems)} problem{'s' if len(self.problems) > 1 else ''}, in {', '.join(areas)}"

    def area_counts(self) -> dict[str, dict[str, int | bool]]:
        """Return by area: whether it exists (`there`), and numbers of entries, of fine and skipped ones, and of those
        with each kind of problem."""
        ids: dict[tuple[str, str], set[str]] = defaultdict(set)
        for problem in self.problems:
            ids[problem.area, problem.kind].add(problem.id)
        counts: dict[str, dict[str, int | bool]] = {}
        for area, entries in self.entries.items():
            not_fine = set[str]().union(*(ids[area, kind] for kind in PROBLEM_KINDS))
            fine = max(0, (entries or 0) - len(not_fine) - self.skipped[area])
            counts[area] = {
                "there": entries is not None,
                "entries": entries or 0,
                "fine": 0 if area in self.unusable_areas else fine,
                **{kind: len(ids[area, kind]) for kind in PROBLEM_KINDS},
                "skipped": self.skipped[area],
            }
        return counts

    def as_dict(self) -> dict[str, Any]:
        """Return the whole report for JSON."""
        problems = [
            dict(zip(("area", "id", "kind", "reason", "cure"), problem, strict=True)) for problem in self.problems
        ]
        notes = [note._asdict() for note in self.notes]
        return {"areas": self.area_counts(), "problems": problems, "notes": notes, "fine": self.fine}

    def run_report(self) -> RunReport:
        """Return the numbers for `--report`: done are the fine entries, failed the problems by area and id."""
        failed: dict[str, str] = {}
        for problem in self.problems:
            key, reason = f"{problem.area}: {problem.id}", f"{problem.kind}: {problem.reason}"
            failed[key] = f"{failed[key]}; {reason}" if key in failed else reason
        num_fine = sum(counts["fine"] for counts in self.area_counts().values())
        return RunReport(done=num_fine, failed=failed, unit="entry")

    def format_lines(self) -> Iterator[str]:
        """Yield the lines for a terminal: the table, then the first notes and problems of each area and kind."""
        yield f"{'':12}" + "".join(f"{name:>9}" for name in ("entries", "fine", *PROBLEM_KINDS, "skipped"))
        for area, counts in self.area_counts().items():
            if not (counts["there"] or any(counts[kind] for kind in PROBLEM_KINDS)):
                yield f"{area:12}  not created yet"
                continue
            numbers = [str(counts["entries"]), str(counts["fine"])]
            numbers += [str(counts[name] or "-") for name in (*PROBLEM_KINDS, "skipped")]
            yield f"{area:12}" + "".join(f"{number:>9}" for number in numbers)
        notes: dict[str, list[str]] = defaultdict(list)
        for note in self.notes:
            notes[note.area].append(": ".join(filter(None, (note.area, note.id, note.reason))))
        problems: dict[str, list[str]] = defaultdict(list)
        for area, entry_id, kind, reason, hint in self.problems:
            line = f"{area}: {entry_id}: {kind}: {reason}"
            problems[f"{area}: {kind}"].append(f"{line}; {hint}" if hint else line)
        for groups in (notes, problems):
            for group, lines in groups.items():
                yield from lines[:MAX_LINES]
                if len(lines) > MAX_LINES:
                    yield f"{group}: {len(lines) - MAX_LINES} more, see --json FILE"
