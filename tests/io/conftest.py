"""Fixtures for the tests with malicious checkpoints."""

from pathlib import Path

import pytest

from tests.untrusted_files import write_malicious_checkpoint


@pytest.fixture
def command_marker(tmp_path: Path) -> Path:
    return tmp_path / "the command ran"


@pytest.fixture(params=["zip", "legacy", "pickle2", "pickle4", "tar"])
def malicious_checkpoint(request: pytest.FixtureRequest, tmp_path: Path, command_marker: Path) -> Path:
    return write_malicious_checkpoint(tmp_path / "malicious_checkpoint.pth", request.param, command_marker)
