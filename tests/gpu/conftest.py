"""Of the tests on a GPU: products are exact."""

import pytest
import torch


@pytest.fixture(autouse=True)
def exact(fresh_graphs):
    """No TF32, which Composer allows for a whole process."""
    kept = [(each, each.allow_tf32) for each in (torch.backends.cuda.matmul, torch.backends.cudnn)]
    for each, _ in kept:
        each.allow_tf32 = False  # not by monkeypatch: these attributes can't be looked up in the class
    yield
    for each, allowed in kept:
        each.allow_tf32 = allowed
