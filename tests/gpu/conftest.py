"""The simulated card needs a PyTorch that is built for CUDA, which needs no GPU."""

import pytest
import torch


@pytest.fixture(autouse=True)
def cuda_build() -> None:
    if not torch.backends.cuda.is_built():
        pytest.skip("PyTorch is built without CUDA")
