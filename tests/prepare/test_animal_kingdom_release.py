"""Import of the released workbooks of Animal Kingdom, if they are present."""

import contextlib
import hashlib
import io
from collections import Counter
from pathlib import Path

import pytest

import prepare_dataset
from tests.conftest import SHARED
from vimoclip import annotations

RELEASE_DIR = SHARED / "animal_kingdom"


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> tuple[annotations.Annotations, Path, str]:
    """Return the annotations, their folder and the printed output."""
    if not RELEASE_DIR.is_dir():
        pytest.skip(f"{RELEASE_DIR} is missing")
    annotations_dir = tmp_path_factory.mktemp("release")
    command = ["animal-kingdom", "--species", "--output-dir", str(annotations_dir)]
    command += ["--metadata", str(RELEASE_DIR / "AR_metadata.xlsx"), "--actions", str(RELEASE_DIR / "df_action.xlsx")]
    with contextlib.redirect_stdout(io.StringIO()) as output:
        prepare_dataset.main(command)
    return annotations.load(annotations_dir, "ak", ["train", "val"]), annotations_dir, output.getvalue()


def test_splits_and_segments_are_the_published_ones(release: tuple[annotations.Annotations, Path, str]) -> None:
    data, annotations_dir, _ = release
    assert [len(videos) for videos in data.splits.values()] == [24004, 6096]
    assert len(data.classes) == 140
    sizes = {name: Counter(segments) for name, segments in data.partitions.items()}
    assert sizes["segment"] == {"head": 17, "middle": 29, "tail": 94}
    assert sizes["segment_by_count"] == {"head": 18, "middle": 32, "tail": 90}
    val_labels = {label for labels in data.splits["val"].values() for label in labels}
    assert 140 - len(val_labels) == 13
    assert (annotations_dir / "train_multi.txt").read_text().startswith("AAACXZTV.mp4 2 40\nAABCQPTK.mp4 2 15\n")


def test_conflicts(release: tuple[annotations.Annotations, Path, str]) -> None:
    data, _, output = release
    expected = {
        49: ("Flapping tail", "middle"),
        50: ("Flapping its ears", "tail"),
        70: ("Lying on its side", "tail"),  # both sheets have this and the next swapped, the clips don't
        74: ("Lying down", "tail"),
        81: ("Performing sexual display", "tail"),
        82: ("Performing allo-grooming", "tail"),
        83: ("Performing allo-preening", "tail"),
        84: ("Performing copulatory mounting", "tail"),
        139: ("Yawning", "tail"),  # the sheet Action has no label for it
    }
    assert {i: (data.classes[i], data.partitions["segment"][i]) for i in expected} == expected
    lines = [line.split() for line in output.splitlines() if line.startswith("  id ")]
    assert [int(line[1]) for line in lines] == list(expected)
    assert "290 of the 290" in output and "86 of the 86" in output


def test_selection_is_a_tenth_of_each_class(release: tuple[annotations.Annotations, Path, str]) -> None:
    data, annotations_dir, _ = release
    train, selected = data.splits["train"], set(data.selection)
    assert abs(len(selected) / len(train) - 0.1) < 0.002
    counts = Counter(label for labels in train.values() for label in labels)
    drawn = Counter(label for video in selected for label in train[video])
    assert all(abs(drawn[i] / counts[i] - 0.1) < 0.01 for i in counts if counts[i] > 100)
    assert all(drawn[i] < counts[i] for i in counts) and all(drawn[i] for i in counts if counts[i] > 1)
    assert list(data.selection) == [video for video in train if video in selected]
    # the same for every version of the dependencies
    assert hashlib.sha256((annotations_dir / "selection.txt").read_bytes()).hexdigest()[:16] == "76b460bbb2a83b45"


def test_animals(release: tuple[annotations.Annotations, Path, str]) -> None:
    data, annotations_dir, output = release
    animals = annotations.read_animals(annotations_dir)
    assert list(animals.keys() - {video for videos in data.splits.values() for video in videos}) == []
    assert len(animals) == 30100
    clips = Counter(parent for entry in animals.values() for parent in entry.classes)
    assert set(clips) == {"Bird", "Mammal", "Reptile", "Insect", "Amphibian", "Fish", "Sea animal"}
    assert "Common Quail (in 392 clips), Cuckoo Bird (in 139 clips)" in output
    assert [video for video, entry in animals.items() if not entry.animals] == ["KDIANBXG.mp4"]
