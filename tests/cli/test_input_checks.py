"""Checks of settings."""

from pathlib import Path

import pytest

from vimoclip import cli
from vimoclip.errors import UserError


def test_a_setting_within_a_setting_is_named_with_both_values() -> None:
    train, old, new = "a" * 64, "b" * 64, "c" * 64
    first, second = {"embeddings": {"train": train, "val": new}}, {"embeddings": {"train": train, "val": old}}
    with pytest.raises(UserError) as caught:
        cli.check_settings_match(first, second, "this command", "last.pth", "")
    assert all(text in str(caught.value) for text in ("embeddings.val", old, new))


def test_a_nested_setting_that_one_side_lacks_is_accepted() -> None:
    """As the precision of flow in a run that began with flow of an earlier version."""
    flow = {"method": "raft", "size": 224}
    cli.check_settings_match({"flow": flow | {"precision": "bf16"}}, {"flow": flow}, "this command", "last.pth", "")
    with pytest.raises(UserError):
        cli.check_settings_match({"flow": flow | {"a": 1}}, {"flow": {"method": "dis"}}, "this command", "last.pth", "")


def test_a_name_that_is_too_long_is_no_file_or_folder(tmp_path: Path) -> None:
    for check in (cli.require_file, cli.require_folder):
        with pytest.raises(UserError):
            check(tmp_path / ("x" * 300), "")
