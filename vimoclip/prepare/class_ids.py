"""Assignment of ids to classes on which the sheets disagree, from the actions in the clips' descriptions."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from vimoclip.io.names import fold_name

T = TypeVar("T")

MIN_FRACTION = 0.9  # minimum fraction of the clips described with an action that have its id


class ClassIdClaim(NamedTuple):
    """The ids that two sheets give a class. `name`: see `fold_name`. `by_list`: None if that sheet gives no id."""

    name: str
    by_counts: int
    by_list: int | None


@dataclass
class LabelEvidence:
    """Counts of clips with an id, with a description that contains a name, and with both."""

    ids: Counter[int] = field(default_factory=Counter)
    names: Counter[str] = field(default_factory=Counter)
    both: Counter[tuple[int, str]] = field(default_factory=Counter)

    def add_clip(self, ids: Iterable[int], names: Iterable[str]) -> None:
        """Count a clip. `names`: the actions in its description."""
        clip_ids, clip_names = set(ids), {fold_name(name) for name in names}
        self.ids.update(clip_ids)
        self.names.update(clip_names)
        self.both.update((class_id, name) for class_id in clip_ids for name in clip_names)

    def jaccard(self, class_id: int, name: str) -> float:
        """Return the Jaccard index of the clips with the id and the clips with the name."""
        both = self.both[class_id, name]
        return both / (self.ids[class_id] + self.names[name] - both) if both else 0.0

    def id_fraction(self, class_id: int, name: str) -> float:
        """Return the fraction of the clips with the name that have the id."""
        return self.both[class_id, name] / self.names[name] if self.names[name] else 0.0

    def describe(self, class_id: int, name: str) -> str:
        """Return the counts as text."""
        return (
            f"{self.both[class_id, name]} of the {self.names[name]} clips described with it have the id, as do "
            f"{self.ids[class_id]} clips in all"
        )


class AmbiguousClassIdError(ValueError):
    """The id of a class can't be determined; the message names the class and the evidence."""


def resolve_class_ids(claims: Sequence[ClassIdClaim], evidence: LabelEvidence) -> dict[str, int]:
    """Return the id by class name, each of 0..C-1 once. Raises AmbiguousClassIdError.

    The descriptions decide if they are clear: the id has the highest Jaccard index of all ids for the name, and the
    name has the highest of all names for the id. If they are absent or ambiguous, the sheets must agree on an id that
    the descriptions allow."""
    names = [claim.name for claim in claims]
    best_names = {
        class_id: _best_matches({name: evidence.jaccard(class_id, name) for name in names})
        for class_id in range(len(claims))
    }
    ids: dict[str, int] = {}
    for claim in claims:
        name, agreed = claim.name, claim.by_counts
        best = _best_matches({class_id: evidence.jaccard(class_id, name) for class_id in range(len(claims))})
        frequent = {class_id for class_id in best if evidence.id_fraction(class_id, name) >= MIN_FRACTION}
        is_clear = len(best) == 1 and best_names[min(best)] == {name}
        if is_clear and frequent:
            ids[name] = min(best)
        elif claim.by_list == agreed and (agreed in frequent or not evidence.names[name]):
            ids[name] = agreed
        else:
            listed = "no id" if claim.by_list is None else f"id {claim.by_list}"
            counts = "; ".join(f"id {class_id}: {evidence.describe(class_id, name)}" for class_id in sorted(best)[:3])
            raise AmbiguousClassIdError(
                f"class {name!r} has {listed} in one sheet and id {agreed} in the other, and the clips' descriptions "
                f"don't decide between them ({counts or 'no description contains it'})"
            )
    names_by_id: dict[int, str] = {}
    for name, class_id in ids.items():
        if (other := names_by_id.setdefault(class_id, name)) != name:
            missing = sorted(set(range(len(ids))) - set(ids.values()))
            raise AmbiguousClassIdError(
                f"classes {other!r} and {name!r} would both have id {class_id}, and no class would have id {missing[0]}"
            )
    return ids


def _best_matches(scores: Mapping[T, float]) -> set[T]:
    """Return the keys with the highest score; none if all scores are 0."""
    highest = max(scores.values())
    return {key for key, score in scores.items() if score == highest and score > 0}
