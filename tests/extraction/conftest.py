"""Fixtures that several tests of the extraction stages use."""

from pathlib import Path

import pytest

from tests import stage_driver


@pytest.fixture(scope="module")
def small_inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stage_driver.make_small_inputs(tmp_path_factory)
