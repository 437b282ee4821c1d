"""What is wrong with splits: sources in two splits, classes without a clip in the model-selection split or to train on.

Sources are recordings, animals or sites: all clips of a source belong in one split."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from vimoclip.annotations.annotation_files import SELECTION_FILE, Annotations
from vimoclip.annotations.split_protocol import DRAW_COMMAND
from vimoclip.io.names import list_some

if TYPE_CHECKING:
    import numpy as np

CHANGE_COST = 3  # of a clip above the size of the draw, in `cover_classes`: more than of a clip that another replaces
# why classes have no clip where they need one
NOT_TRAINED = "no clip to train on"
ONE_CLIP = "no clip of the model-selection split, as they have one training clip"
ONE_SOURCE = "no clip of the model-selection split, as their training clips are of one source"
NO_ROOM = "no clip of the model-selection split, which has no room for one"
NOT_DRAWN = "no clip of the model-selection split, though another one of its size has one"
GAP_HINTS = {
    NOT_TRAINED: "add training clips of them, from several sources",
    ONE_CLIP: "add training clips of them",
    ONE_SOURCE: "add training clips of them from other sources",
    NO_ROOM: f"draw a larger one with {DRAW_COMMAND} --overwrite --share 0.2 or more",
    NOT_DRAWN: f"draw it again with {DRAW_COMMAND} --overwrite, and then train again",
}
# if no clip of the model-selection split has a label
UNLABELLED_HINT = (
    f"draw it again with {DRAW_COMMAND} --overwrite, with --share 0.2 or more if the labels are rare; or label more "
    "training clips, or choose the protocol published"
)


def source_key(video: str, sources: Mapping[str, str]) -> tuple[bool, str]:
    """Return a key that only videos of one source share; a video without a source is one by itself."""
    return (True, sources[video]) if video in sources else (False, video)


def find_leaks(splits: Mapping[str, Iterable[str]], sources: Mapping[str, str]) -> list[str]:
    """Return a warning for each pair of splits with videos of one source: the number of sources, and the first ones."""
    counts = {name: Counter(sources[v] for v in videos if v in sources) for name, videos in splits.items()}
    names, warnings = list(counts), []
    for index, first in enumerate(names):
        for second in names[index + 1 :]:
            shared = sorted(counts[first].keys() & counts[second].keys())
            if shared:
                clips = sum(counts[second][source] for source in shared)
                warnings.append(
                    f"warning: {len(shared)} sources are in {first} and in {second}, with {clips} clips of {second} "
                    f"({list_some(shared)}): results are too good if a model recognises the place or animal; keep all "
                    "clips of one recording, animal or site in one split"
                )
    return warnings


def find_all_leaks(data: Annotations, sources: Mapping[str, str]) -> list[str]:
    """Return the warnings of `find_leaks` for the splits, and for the training clips inside and outside selection."""
    train = [video for video in data.splits.get("train", {}) if video not in set(data.selection)]
    return find_leaks(data.splits, sources) + find_leaks({"train": train, "selection": data.selection}, sources)


def cover_classes(
    counts: "np.ndarray", sizes: "np.ndarray", drawn: "np.ndarray", limit: float, seed: int
) -> "np.ndarray":
    """Return the draw nearest to `drawn` that has clips of as many classes as possible.

    counts (G, C): clips of each group by class; sizes (G,): clips; drawn (G,) bool, not all and not none. At most
    `limit` clips are drawn, or as many as in `drawn` if these are more. A class that keeps a clip outside of the draw
    still keeps one. Deterministic."""
    import numpy as np

    has_class = counts > 0
    num_groups = has_class.sum(0)
    wanted = num_groups > 1  # a class of one group stays where it is
    if has_class[drawn].any(0)[wanted].all():
        return drawn
    from scipy.optimize import Bounds, LinearConstraint, milp  # an integer program: exact, where a search may miss it
    from scipy.sparse import csr_array, hstack

    rng = np.random.default_rng(seed)
    change = sizes + counts.sum(1) + rng.uniform(0, 0.5, len(sizes))  # those with few labels are exchanged first
    size = int(sizes[drawn].sum())
    limit = max(limit, size)
    keeps = has_class[~drawn].any(0)
    # variables: each group, whether it is drawn; each wanted class, whether it is missing; clips above `size`
    num_wanted = int(wanted.sum())
    cost_missing = change.sum() + CHANGE_COST * limit + 1
    costs = np.concatenate([np.where(drawn, -change, change), np.full(num_wanted, cost_missing), [CHANGE_COST]])
    classes = csr_array(has_class.T.astype(float))
    num_classes = classes.shape[0]
    is_missing = np.zeros((num_classes, num_wanted))
    is_missing[np.flatnonzero(wanted), np.arange(num_wanted)] = 1
    rows = [
        hstack([classes, csr_array(is_missing), csr_array((num_classes, 1))])[wanted],
        hstack([classes, csr_array((num_classes, num_wanted + 1))])[keeps],
        csr_array([[*sizes, *[0] * num_wanted, -1], [*[1] * len(sizes), *[0] * (num_wanted + 1)]]).astype(float),
    ]
    lower = [np.ones(num_wanted), np.zeros(keeps.sum()), [0, 1]]
    upper = [np.full(num_wanted, np.inf), num_groups[keeps] - 1, [size, len(sizes) - 1]]
    constraints = [LinearConstraint(row, low, high) for row, low, high in zip(rows, lower, upper, strict=True)]
    highest = np.concatenate([np.ones(len(sizes) + num_wanted), [limit - size]])
    is_integer = np.concatenate([np.ones(len(sizes) + num_wanted), [0]])
    options = {"mip_rel_gap": 0}  # the optimum, not one near it, which may differ between versions of the solver
    result = milp(costs, integrality=is_integer, bounds=Bounds(0, highest), constraints=constraints, options=options)
    return drawn if result.x is None else result.x[: len(sizes)] > 0.5


def group_training_videos(
    data: Annotations, sources: Mapping[str, str]
) -> tuple[list[list[str]], "np.ndarray", "np.ndarray"]:
    """Return the training videos of each of G sources, (G, C) clips by class and (G,) clips.

    Each video is a group by itself if all are of one source."""
    import numpy as np

    groups: dict[tuple[bool, str], list[str]] = defaultdict(list)
    for video in data.splits.get("train", {}):
        groups[source_key(video, sources)].append(video)
    videos = list(groups.values())
    if len(videos) == 1:
        videos = [[video] for video in videos[0]]
    counts = np.zeros((len(videos), len(data.classes)), np.int64)
    for row, group in zip(counts, videos, strict=True):
        for video in group:
            row[list(data.splits["train"][video])] += 1
    return videos, counts, np.array([len(group) for group in videos])


def find_gaps(data: Annotations, sources: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the classes without a clip in the model-selection split, or to train on, by one of the reasons above."""
    train, selection = data.splits.get("train", {}), set(data.selection)
    groups: dict[int, set[tuple[bool, str]]] = defaultdict(set)
    for video, labels in train.items():
        for label in labels:
            groups[label].add(source_key(video, sources))
    has_several_sources = len({source_key(video, sources) for video in train}) > 1
    clips = Counter(label for labels in train.values() for label in labels)
    selected = {label for video in selection for label in train[video]}
    trained = {label for video in train.keys() - selection for label in train[video]}
    addable = _find_addable_classes(data, sources) if selected < clips.keys() else set()
    gaps: dict[str, list[str]] = defaultdict(list)
    for label, name in enumerate(data.classes):
        if label not in trained:
            gaps[NOT_TRAINED].append(name)
        elif selection and label not in selected:
            if clips[label] == 1:
                reason = ONE_CLIP
            elif has_several_sources and len(groups[label]) == 1:
                reason = ONE_SOURCE
            else:
                reason = NOT_DRAWN if label in addable else NO_ROOM
            gaps[reason].append(name)
    return gaps


def describe_gaps(data: Annotations, sources: Mapping[str, str]) -> list[str]:
    """Return a warning for each reason of `find_gaps`, and one if no clip of the model-selection split has a label."""
    lines = [
        f"warning: {len(names)} classes have {reason}: {list_some(names)}; {GAP_HINTS[reason]}"
        for reason, names in find_gaps(data, sources).items()
    ]
    train = data.splits.get("train", {})
    if data.selection and not any(train[video] for video in data.selection):
        lines.append(f"warning: no clip of {SELECTION_FILE} has a label; {UNLABELLED_HINT}")
    return lines


def _find_addable_classes(data: Annotations, sources: Mapping[str, str]) -> set[int]:
    """Return the classes that another model-selection split of the same size has in addition."""
    import numpy as np

    selection = set(data.selection)
    videos, counts, sizes = group_training_videos(data, sources)
    if any(0 < len(selection.intersection(group)) < len(group) for group in videos):  # some source is in both
        videos, counts, sizes = group_training_videos(data, {})
    drawn = np.array([group[0] in selection for group in videos], bool)
    if not drawn.any() or drawn.all():
        return set()
    before = counts[drawn].any(0)
    after = counts[cover_classes(counts, sizes, drawn, limit=0, seed=0)].any(0)
    return set(np.flatnonzero(after & ~before).tolist()) if after.sum() > before.sum() else set()
