"""Names of files that come from outside."""

import pytest

from vimoclip.io.names import is_windows_name

REFUSED = ["a:b.mp4", "a?.mp4", "a*.mp4", "a<b", "a>b", 'a"b', "a|b", "a/b", "a\\b", "a\x01b", "a.", "a "]
DEVICES = ["CON", "con.mp4", "NUL.mp4", "nul .mp4", "aux.tar.gz", "PRN", "COM1.mp4", "lpt9.mp4", "LPT¹.mp4", "CONIN$"]
TAKEN = ["a.mp4", "console.mp4", "COM.mp4", "com10.mp4", "a con.mp4", "a b.mp4", " a.mp4", "é.mp4", "a+b=c.mp4"]


@pytest.mark.parametrize("name", REFUSED + DEVICES)
def test_windows_refuses(name: str) -> None:
    assert not is_windows_name(name)


@pytest.mark.parametrize("name", TAKEN)
def test_windows_takes(name: str) -> None:
    assert is_windows_name(name)
