"""Of the tests on a GPU: products are exact."""

import pytest
import torch


@pytest.fixture(autouse=True)
def exact(fresh_graphs, monkeypatch):
    """No TF32, which Composer allows for a whole process."""
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
