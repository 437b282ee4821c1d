"""Media files are found by paths from another computer, in folders below those that are searched."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from vimoclip.errors import UserError
from vimoclip.prepare.find_media import locate_films

NFC, NFD = "B\u00e4r", "Ba\u0308r"


def find(root: Path, files: Sequence[str], written: Sequence[str]) -> dict[str, str | None]:
    """Create empty files; return the file of each written path, None if none is found."""
    for name in files:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    films, not_found = locate_films(written, [root / "videos", root], root / "events.csv")
    found = {path: film.file.relative_to(root).as_posix() for path, film in films.items()}
    return found | dict.fromkeys(not_found)


@pytest.mark.parametrize(
    ("files", "written", "expected"),
    [
        (["day1/a.mp4"], r"day1\a.mp4", "day1/a.mp4"),
        (["videos/day1/a.mp4", "day1/a.mp4"], "day1/a.mp4", "videos/day1/a.mp4"),  # --videos-dir comes first
        (["a.mp4", "x/a.mp4"], "a.mp4", "a.mp4"),
        (["day1/a.mp4", "day2/a.mp4"], r"C:\data/films\day2\a.mp4", "day2/a.mp4"),
        (["x/day1/a.mp4", "y/day2/a.mp4", "day2/z/a.mp4"], "/home/ann/day2/a.mp4", "y/day2/a.mp4"),
        (["videos/a.mp4", "b/day2/a.mp4"], "/home/ann/day2/a.mp4", "b/day2/a.mp4"),  # the longest tail
        (["videos/x/a.mp4", "y/a.mp4"], r"\\server\share\a.mp4", "videos/x/a.mp4"),
        (["x/a.mp4", "y/a.mp4"], "/home/ann/a.mp4", None),  # either could be it
        (["a.mp4"], "b.mp4", None),
        ([f"x/{NFD}.mp4"], f"x/{NFC}.mp4", f"x/{NFD}.mp4"),
        ([f"{NFC}/a.mp4", "y/a.mp4"], f"C:\\{NFD}\\a.mp4", f"{NFC}/a.mp4"),
        (["Day1/gopr0001.mp4", "day2/gopr0001.mp4"], r"D:\DAY1\GOPR0001.MP4", "Day1/gopr0001.mp4"),
        (["x/A.mp4", "x/a.mp4"], "C:/x/a.mp4", "x/a.mp4"),
        (["x/A.mp4", "y/a.mp4"], "C:/a.mp4", "y/a.mp4"),
        (["films/a.mp4"], "../somewhere/a.mp4", "films/a.mp4"),
        (["x/a.mp4", "y/a.mp4"], r'"C:\y\a.mp4"', "y/a.mp4"),  # a path as Windows copies it
        (["x/my film.mp4", "y/my film.mp4"], "file:///C:/y/my%20film.mp4", "y/my film.mp4"),
        (["x/a.b.MP4", "y/a.b.mp4", "y/a.b.jpg"], "y/a.b", "y/a.b.mp4"),
        (["a.mp4", "a.avi"], "a", None),
        (["a.mp4.mp4"], "a.mp4", None),
        (["x/at 10.00\u202fAM.mov"], "at 10.00 AM.mov", "x/at 10.00\u202fAM.mov"),
        (["a.mp4"], "\ufeffa\u200b.mp4", "a.mp4"),
        (["a.mp4"], "..", None),
        (["a.mp4"], "x" * 300 + "/b.mp4", None),
        ([".trash/a.mp4", "@eaDir/a.mp4", "x/a.mp4"], "C:/a.mp4", "x/a.mp4"),
    ],
)
def test_file_of_a_written_path(tmp_path: Path, files: list[str], written: str, expected: str | None) -> None:
    (tmp_path / "videos").mkdir()
    assert find(tmp_path, files, [written]) == {written: expected}


def test_absolute_path_and_link_to_the_same_file(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.mp4").touch()
    (tmp_path / "videos" / "link").symlink_to(tmp_path / "elsewhere")
    written = str(tmp_path / "elsewhere" / "a.mp4")
    assert find(tmp_path, ["videos/a.mp4"], [written]) == {written: "elsewhere/a.mp4"}
    assert find(tmp_path, ["videos/b.mp4"], ["D:/elsewhere/a.mp4"]) == {"D:/elsewhere/a.mp4": "elsewhere/a.mp4"}


def test_broken_links_and_folders_are_no_match(tmp_path: Path) -> None:
    (tmp_path / "videos" / "x" / "a.mp4").mkdir(parents=True)
    (tmp_path / "videos" / "a.mp4").symlink_to("gone.mp4")
    assert find(tmp_path, [], ["C:/x/a.mp4"]) == {"C:/x/a.mp4": None}
    assert find(tmp_path, ["y/a.mp4"], ["C:/x/a.mp4"]) == {"C:/x/a.mp4": "y/a.mp4"}


def test_several_equal_matches_are_named(tmp_path: Path) -> None:
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.mp4").touch()
    _, not_found = locate_films(["C:/a.mp4"], [tmp_path], tmp_path / "events.csv")
    assert str(tmp_path / "x" / "a.mp4") in not_found["C:/a.mp4"]
    assert str(tmp_path / "y" / "a.mp4") in not_found["C:/a.mp4"]


def test_path_that_may_be_the_film_of_another_path_is_refused(tmp_path: Path) -> None:
    """Otherwise the film would be without the labels of one of them."""
    (tmp_path / "videos").mkdir()
    with pytest.raises(UserError, match=r"C:/a\.mp4.*y/a\.mp4"):
        find(tmp_path, ["x/a.mp4", "y/a.mp4"], ["C:/a.mp4", "y/a.mp4"])


@pytest.mark.parametrize(
    ("first", "second", "is_one"),
    [
        ("day1/a.mp4", "day2/a.mp4", False),
        ("C:/data/day1/a.mp4", "/home/bob/day1/a.mp4", False),
        ("a.mp4", "/home/bob/day1/a.mp4", True),
        (r"C:\data\day1\a.mp4", "d:/DATA/day1/a.mp4", True),
        (f"{NFC}/a.mp4", f"{NFD}/a.mp4", True),
        ("./x/../day1/a.mp4", "day1/a.mp4", True),
    ],
)
def test_different_paths_at_one_file_are_refused(tmp_path: Path, first: str, second: str, is_one: bool) -> None:
    (tmp_path / "a.mp4").touch()
    if not is_one:
        with pytest.raises(UserError) as caught:
            locate_films([first, second], [tmp_path], tmp_path / "events.csv")
        assert first in str(caught.value) and second in str(caught.value)
    else:
        films, _ = locate_films([first, second], [tmp_path], tmp_path / "events.csv")
        assert films[first] == films[second]


def test_films_of_one_name_are_named_after_their_folders(tmp_path: Path) -> None:
    written = ["1/cam/a.mp4", "2/cam/a.mp4", "2/b.mp4", f"3/{NFC}.mp4", f"4/{NFD}.MP4"]
    for name in written:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    films, _ = locate_films(written, [tmp_path], tmp_path / "events.csv")
    assert [film.source for film in films.values()] == [
        "1__cam__a.mp4", "2__cam__a.mp4", "b.mp4", f"3__{NFC}.mp4", f"4__{NFC}.MP4"
    ]  # fmt: skip
