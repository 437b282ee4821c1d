"""Names of files that come from outside: which every system takes; paths relative to a folder."""

from pathlib import Path

import pytest

from vimoclip.io.names import is_windows_name, portable_stem, relative_path

REFUSED = ["a:b.mp4", "a?.mp4", "a*.mp4", "a<b", "a>b", 'a"b', "a|b", "a/b", "a\\b", "a\x01b", "a.", "a "]
DEVICES = ["CON", "con.mp4", "NUL.mp4", "nul .mp4", "aux.tar.gz", "PRN", "COM1.mp4", "lpt9.mp4", "LPT¹.mp4", "CONIN$"]
TAKEN = ["a.mp4", "console.mp4", "COM.mp4", "com10.mp4", "a con.mp4", "a b.mp4", " a.mp4", "é.mp4", "a+b=c.mp4"]


@pytest.mark.parametrize("name", REFUSED + DEVICES)
def test_windows_refuses(name: str) -> None:
    assert not is_windows_name(name)


@pytest.mark.parametrize("name", TAKEN)
def test_windows_takes(name: str) -> None:
    assert is_windows_name(name)


@pytest.mark.parametrize(
    ("stem", "expected"),
    [
        ("10:30 <a>|\"?*", "10-30 -a-----"),
        ("a.b", "a.b"),
        ("end.", "end-"),
        ("end ", "end-"),
        ("NUL", "NUL-"),
        ("com1.x.y", "com1-.x.y"),
        ("Lpt\u00b9", "Lpt\u00b9-"),
        ("console", "console"),
        ("com", "com"),
        ("B\u00e4r", "B\u00e4r"),
    ],
)  # fmt: skip
def test_what_windows_refuses_is_replaced(stem: str, expected: str) -> None:
    assert portable_stem(stem) == expected
    assert is_windows_name(portable_stem(stem))


def test_relative_paths_lead_to_the_file_also_through_links(tmp_path: Path) -> None:
    (tmp_path / "disk" / "out").mkdir(parents=True)
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").touch()
    (tmp_path / "out").symlink_to(tmp_path / "disk" / "out")
    for folder, expected in (
        (tmp_path / "out", "../../videos/a.mp4"),  # from where the link leads
        (tmp_path / "disk" / "out", "../../videos/a.mp4"),
        (tmp_path / "videos", "a.mp4"),
        (tmp_path, "videos/a.mp4"),
        (tmp_path / "new", "../videos/a.mp4"),  # does not exist yet
    ):
        assert relative_path(tmp_path / "videos" / "a.mp4", folder) == expected
