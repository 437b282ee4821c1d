"""What the simulated card needs: a PyTorch that is built for CUDA, and the internals of fake tensors that it uses."""

import pytest
import torch
from torch.torch_version import TorchVersion

OLDEST = "2.14"  # of PyTorch, that the card is tested with


@pytest.fixture(autouse=True)
def suitable_pytorch(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("gpu"):  # on a real card any version will do
        return
    if not torch.backends.cuda.is_built():
        pytest.skip("PyTorch is built without CUDA")
    if TorchVersion(torch.__version__) < OLDEST:
        pytest.skip(f"PyTorch is older than {OLDEST}")
