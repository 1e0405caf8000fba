"""Every technique of the table, and every optimizer, on a GPU: a training step against float64 on a CPU."""

import copy
from importlib.util import find_spec

import pytest
import torch
from cases import CASES, PAIRS
from devices import off, on_devices
from families import batch, build

from cadenza.recipe.optimizers import optimizer_for
from cadenza.recipe.optimizers.choice import OPTIMIZERS
from cadenza.recipe.schema import Optimizer

# Their codes may move by a rounding, and stored weights have no copy in float64: `test_gpu` has them.
ROUNDED = ("quantization_aware_training", "post_training_quantization")
EXACT = [pair for pair in PAIRS if pair[0] not in ROUNDED]
MISSING = {
    "muon": not hasattr(torch.optim, "Muon") and "needs torch 2.9",
    "stable_adamw": not find_spec("optimi") and "needs torch-optimi",
}


@on_devices
@pytest.mark.parametrize(("name", "family"), EXACT)
def test_gradients_of_each_technique_equal_those_of_float64(device, name, family):
    model = without_dropout(build(family))
    CASES[name].apply(model)
    exact = copy.deepcopy(model).double()
    true_loss, true_gradient = learned(exact, family, "cpu")
    loss, gradient = learned(model.to(device), family, device)
    assert off(loss, true_loss) < 1e-6
    assert off(gradient, true_gradient) < 1e-5


@on_devices
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_of_each_optimizer_equal_those_of_float64(device, name):
    """But for Muon's matrices, which torch orthogonalizes in bfloat16."""
    if reason := MISSING.get(name):
        pytest.skip(f"NOT VERIFIED HERE: {name} {reason}")
    model = without_dropout(build("bert"))
    before = parameters(model)
    exact = copy.deepcopy(model).double()
    section = Optimizer(name=name, lr=1e-2, weight_decay=1e-2, eps=1e-3)
    for each, where in ((exact, "cpu"), (model.to(device), device)):
        optimizer = optimizer_for(section, each)
        for _ in range(2):
            learned(each, "bert", where)
            optimizer.step()
    ours, theirs = (parameters(each) - before for each in (model, exact))
    assert theirs.norm() > 0.05
    assert off(ours, theirs) < (0.02 if name == "muon" else 1e-4)


def without_dropout(model):
    """`model` in training mode, without the draws of dropout, which differ by device."""
    for module in model.train().modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model


def learned(model, family, device):
    """The loss of a batch, and the gradients of all parameters, in float64."""
    model.zero_grad()
    loss = model(**{name: tensor.to(device) for name, tensor in batch(family).items()}).loss
    loss.backward()
    found = [p.grad.detach().cpu().double().flatten() for p in model.parameters() if p.grad is not None]
    return loss, torch.cat(found)


def parameters(model):
    return torch.cat([p.detach().cpu().double().flatten() for p in model.parameters()])
