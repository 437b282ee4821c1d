"""Checks of settings."""

import pytest

from vimoclip import cli
from vimoclip.errors import UserError


def test_a_setting_within_a_setting_is_named_with_both_values() -> None:
    train, old, new = "a" * 64, "b" * 64, "c" * 64
    first, second = {"embeddings": {"train": train, "val": new}}, {"embeddings": {"train": train, "val": old}}
    with pytest.raises(UserError) as caught:
        cli.check_settings_match(first, second, "this command", "last.pth", "")
    assert all(text in str(caught.value) for text in ("embeddings.val", old, new))
