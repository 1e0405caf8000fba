"""A model is looked at, and is as it was."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from cadenza.probes.untouched import untouched


class Restless(nn.Module):
    """Changes all that a call can change."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(3)
        self.seen = 0
        self.cache = {"kept": 1}
        self.register_buffer("longest", torch.zeros(1), persistent=False)

    def forward(self, x):
        self.seen += 1
        self.cache[self.seen] = x
        self.longest = self.longest + 1
        random.random()
        np.random.rand()
        return self.norm(x) + torch.randn(3)


def state(model):
    """All that must be the same afterwards."""
    buffers = {name: (id(buffer), buffer.tolist()) for name, buffer in model.named_buffers()}
    parameters = [
        (p.requires_grad, p.grad if p.grad is None else p.grad.tolist()) for p in model.parameters()
    ]
    attributes = (model.seen, dict(model.cache), len(model.norm._forward_hooks), set(vars(model)))
    randomness = (torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist())
    return buffers, parameters, attributes, [m.training for m in model.modules()], randomness


def disturb(model):
    model.train(not model.training)
    model.norm.register_forward_hook(lambda *_: None)
    model.norm.weight.requires_grad_(True)
    model.norm.train()
    assert all(parameter.grad is None for parameter in model.parameters())
    model(torch.ones(4, 3)).sum().backward()
    model.extra = 1


def fail(model):
    with untouched(model):
        disturb(model)
        model(torch.ones(3))


@pytest.mark.parametrize("training", [True, False])
def test_everything_is_restored(training):
    model = Restless().train(training)
    model.norm.weight.requires_grad_(False)
    model.norm.bias.grad = torch.ones(3)
    before = state(model)
    with untouched(model):
        disturb(model)
        assert state(model) != before
    assert state(model) == before


def test_everything_is_restored_after_an_error():
    model = Restless()
    before = state(model)
    with pytest.raises(ValueError, match="expected 2D"):
        fail(model)
    assert state(model) == before


def test_a_graph_from_before_can_still_be_walked():
    """Buffers that didn't change aren't written to: a write would fail this backward."""
    model = nn.Sequential(nn.BatchNorm1d(3)).eval()
    loss = model(torch.ones(4, 3)).sum()
    with untouched(model):
        model(torch.ones(4, 3))
    loss.backward()
    assert model[0].weight.grad is not None


def test_surroundings_make_no_difference_within():
    model = nn.Linear(3, 3)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        with untouched(model):
            inside = model(torch.ones(1, 3))
        outside = model(torch.ones(1, 3))
    assert (inside.dtype, inside.requires_grad) == (torch.float32, True)
    assert (outside.dtype, outside.requires_grad) == (torch.bfloat16, False)
