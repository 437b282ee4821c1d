"""The manifest file: names, truncated lines, links, full disks."""

from pathlib import Path

import pytest

from tests.conftest import file_size_limit
from vimoclip.extraction import manifest
from vimoclip.extraction.manifest import Manifest, ManifestEntry


def test_a_link_created_during_the_run_is_not_written_through(tmp_path: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_text("mine")
    opened = Manifest(tmp_path / "out")
    opened.path.symlink_to(other)
    with pytest.raises(OSError):
        opened.add(ManifestEntry("a", "ok"))
    assert other.read_text() == "mine"


@pytest.mark.parametrize("output", [Path("out.h5"), Path("flows"), Path("flows/"), Path("a.b/c d.h5")])
def test_the_manifest_is_beside_the_output(output: Path) -> None:
    assert manifest.manifest_path(output) == output.with_name(output.name + ".manifest.jsonl")


def test_names_and_reasons_are_read_back_unchanged(tmp_path: Path) -> None:
    entries = [
        ManifestEntry("Löwe 獅子 🦁.mp4", "failed", 'says "no"\n\u2028'),
        ManifestEntry("b", "ok", "", 3, 3, 10, 1.5, 0.25),
    ]
    opened = Manifest(tmp_path / "out")
    for entry in entries:
        opened.add(entry)
    assert opened.path.read_text().count("\n") == 2
    assert list(manifest.read_manifest(opened.path).values()) == entries
    assert Manifest(tmp_path / "out").entries == {entry.id: entry for entry in entries}


@pytest.mark.parametrize("cut", [1, 5, 8, 9, 40, 200])
def test_a_truncated_last_line_is_dropped(cut: int, tmp_path: Path) -> None:
    entries = [manifest.ManifestEntry(name, "ok", frames_decoded=3) for name in ("Löwe.mp4", "b.mp4")]
    opened = manifest.Manifest(tmp_path / "out")
    for entry in entries:
        opened.add(entry)
    content = opened.path.read_bytes()
    first = content.index(b"\n") + 1
    opened.path.write_bytes(content[: min(first + cut, len(content) - 2)])
    for end in (b"", bytes(100)):  # file systems may leave NUL bytes after a power cut
        with open(opened.path, "ab") as file:
            file.write(end)
        reopened = manifest.Manifest(tmp_path / "out")
        assert list(reopened.entries.values()) == entries[:1]
        assert opened.path.read_bytes() == content[:first]


def test_a_full_disk_leaves_the_previous_lines(tmp_path: Path) -> None:
    def entry(i: int) -> manifest.ManifestEntry:
        return manifest.ManifestEntry(f"clip{i}.mp4", "partial", "Löwe", 10, 9)

    path = manifest.manifest_path(tmp_path / "out")
    line_size = len(manifest._format_line(entry(0)))
    for limit in range(2 * line_size, 3 * line_size - 1, 9):  # a line without its last byte is complete
        path.unlink(missing_ok=True)
        opened = manifest.Manifest(tmp_path / "out")
        with file_size_limit(limit):
            opened.add(entry(0))
            opened.add(entry(1))
            with pytest.raises(OSError, match=r"out\.manifest\.jsonl"):
                opened.add(entry(2))
        assert path.stat().st_size == limit
        reopened = manifest.Manifest(tmp_path / "out")
        assert list(reopened.entries.values()) == [entry(0), entry(1)]
        reopened.add(entry(2))
        assert list(manifest.read_manifest(path).values()) == [entry(i) for i in range(3)]
