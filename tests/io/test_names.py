"""File names that every system accepts."""

import pytest

from vimoclip.io.names import portable_stem


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
