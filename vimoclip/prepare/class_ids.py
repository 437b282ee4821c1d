"""Which id is which class, where the sheets that say it don't agree: by what clips are said to show, in words."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

T = TypeVar("T")

SURE = 0.9  # of the clips that are said to show an action, so many at least must have its id


def fold(name: str) -> str:
    """One spelling of a name: capitals and spaces don't matter."""
    return " ".join(name.split()).casefold()


class Claim(NamedTuple):
    """The ids that two sheets give a class, under its folded name. `by_list`: None where that sheet gives none."""

    name: str
    by_counts: int
    by_list: int | None


@dataclass
class Evidence:
    """How many clips have an id, how many are said in words to show a name, and how many both."""

    ids: Counter[int] = field(default_factory=Counter)
    names: Counter[str] = field(default_factory=Counter)
    both: Counter[tuple[int, str]] = field(default_factory=Counter)

    def add(self, ids: Iterable[int], names: Iterable[str]) -> None:
        """Take a clip into account: its ids and the actions that it is said to show."""
        of_clip, said = set(ids), {fold(name) for name in names}
        self.ids.update(of_clip)
        self.names.update(said)
        self.both.update((number, name) for number in of_clip for name in said)

    def fit(self, number: int, name: str) -> float:
        """Clips with both, of those with the id or the name: 1 where each stands exactly where the other does."""
        both = self.both[number, name]
        return both / (self.ids[number] + self.names[name] - both) if both else 0.0

    def share(self, number: int, name: str) -> float:
        """Of the clips that are said to show it, those that have the id."""
        return self.both[number, name] / self.names[name] if self.names[name] else 0.0

    def say(self, number: int, name: str) -> str:
        """The counts, in words."""
        return (
            f"{self.both[number, name]} of the {self.names[name]} clips said to show it have the id, "
            f"which {self.ids[number]} have"
        )


class Unsettled(ValueError):
    """Nothing says which id a class has; the text names it, with the evidence."""


def settle(claims: Sequence[Claim], evidence: Evidence) -> dict[str, int]:
    """Name -> id, each of 0..C-1 once. Raises Unsettled.

    The words decide where they are clear: the id fits the name best of all ids, and the name fits the id best of all
    names. Where they say nothing or name several alike, the sheets must agree, on one of these."""
    names = [claim.name for claim in claims]
    best_of_id = {number: _best({n: evidence.fit(number, n) for n in names}) for number in range(len(claims))}
    settled = {}
    for claim in claims:
        best = _best({number: evidence.fit(number, claim.name) for number in range(len(claims))})
        clear = len(best) == 1 and best_of_id[min(best)] == {claim.name}
        if clear and evidence.share(min(best), claim.name) >= SURE:
            settled[claim.name] = min(best)
        elif claim.by_list == claim.by_counts and _unopposed(claim, best, evidence):
            settled[claim.name] = claim.by_counts
        else:
            raise Unsettled(_doubt(claim, best, evidence))
    _check_distinct(settled)
    return settled


def _best(fits: Mapping[T, float]) -> set[T]:
    """Those that fit best; none where nothing fits."""
    top = max(fits.values())
    return {key for key, fit in fits.items() if fit == top and fit > 0}


def _unopposed(claim: Claim, best: set[int], evidence: Evidence) -> bool:
    """Whether the words allow the id on which both sheets agree."""
    if not evidence.names[claim.name]:
        return True
    return claim.by_counts in best and evidence.share(claim.by_counts, claim.name) >= SURE


def _doubt(claim: Claim, best: set[int], evidence: Evidence) -> str:
    listed = "no id" if claim.by_list is None else f"id {claim.by_list}"
    said = "; ".join(f"id {number}: {evidence.say(number, claim.name)}" for number in sorted(best)[:3])
    return (
        f"the class {claim.name!r} stands at {listed} in one sheet and at id {claim.by_counts} in the other, and the "
        f"clips don't settle it ({said or 'none is said to show it'})"
    )


def _check_distinct(settled: Mapping[str, int]) -> None:
    taken: dict[int, str] = {}
    for name, number in settled.items():
        if (other := taken.setdefault(number, name)) != name:
            lacking = sorted(set(range(len(settled))) - set(settled.values()))
            raise Unsettled(
                f"the classes {other!r} and {name!r} would both have id {number}, and id {lacking[0]} no name"
            )
