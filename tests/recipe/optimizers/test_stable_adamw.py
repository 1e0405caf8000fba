"""StableAdamW against a plain reference: update clipping by the RMS of each parameter."""

import math
import sys

import pytest
import torch

from cadenza.recipe import RecipeError, load
from cadenza.recipe.optimizers import optimizer_for
from cadenza.recipe.schema import Optimizer
from cadenza.recipe.trainer import trainer_settings

SHAPES = ((3, 5), (7,), ())
SCHEDULE = (0.5, 1.0, 1.0, 0.25)
LOUD = 100.0  # how much larger the third gradient is: its update must be clipped


def reference(weight, gradients, section, *, clips=True):
    """The weight by arXiv 2304.13013, Algorithm 2, decay times the schedule, and the largest RMS."""
    weight, (one, two), largest = weight.double(), section.betas, 0.0
    first = second = torch.zeros_like(weight)
    for step, (gradient, now) in enumerate(zip(gradients, SCHEDULE, strict=True), start=1):
        gradient = gradient.double()
        first = one * first + (1 - one) * gradient
        second = two * second + (1 - two) * gradient**2
        mean, square = first / (1 - one**step), second / (1 - two**step)
        rms = math.sqrt((gradient**2 / square.clamp(min=section.eps**2)).mean())
        now, largest = now / (max(1, rms) if clips else 1), max(largest, rms)
        weight = weight * (1 - now * section.weight_decay)
        weight = weight - now * section.lr * mean / (square.sqrt() + section.eps)
    return weight, largest


@pytest.mark.parametrize("apart", [False, True])
def test_the_update_against_a_plain_reference(apart):
    pytest.importorskip("optimi", reason="NOT VERIFIED HERE: needs torch-optimi")
    section = Optimizer(
        name="stable_adamw", lr=0.1, betas=[0.8, 0.9], eps=1e-6, weight_decay=9e-4, decay_matrices_only=apart
    )
    torch.manual_seed(3)
    model = torch.nn.ParameterList([torch.randn(shape, dtype=torch.float64) for shape in SHAPES])
    start, given = [p.detach().clone() for p in model], [[] for _ in SHAPES]
    optimizer = optimizer_for(section, model)
    for step, now in enumerate(SCHEDULE):
        for parameter, seen in zip(model, given, strict=True):
            parameter.grad = torch.randn_like(parameter) * (LOUD if step == 2 else 1)
            seen.append(parameter.grad.clone())
        for group in optimizer.param_groups:
            group["lr"] = section.lr * now
        optimizer.step()
    for parameter, first, gradients in zip(model, start, given, strict=True):
        decay = 0.0 if apart and parameter.ndim < 2 else section.weight_decay
        own = Optimizer(**{**vars(section), "weight_decay": decay})
        (expected, rms), (without, _) = (reference(first, gradients, own, clips=c) for c in (True, False))
        torch.testing.assert_close(parameter.data, expected, rtol=1e-12, atol=1e-12)
        assert rms > 1.4
        assert (without - expected).abs().min() > 1e-4


def test_a_run_from_a_gpu_goes_on_on_a_cpu():
    """Its checkpoint says that Triton's kernels step, which a CPU hasn't."""
    pytest.importorskip("optimi", reason="NOT VERIFIED HERE: needs torch-optimi")
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = optimizer_for(Optimizer(name="stable_adamw", lr=0.1), torch.nn.ParameterList([parameter]))
    saved = optimizer.state_dict()
    saved["param_groups"][0]["triton"] = True
    optimizer.load_state_dict(saved)
    parameter.grad = torch.ones(3)
    optimizer.step()
    assert optimizer.param_groups[0]["triton"] is False
    assert (parameter < 1).all()


def test_where_the_package_is_missing_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "optimi", None)
    monkeypatch.setattr("cadenza.recipe.optimizers.choice.find_spec", lambda name: None)
    with pytest.raises(RecipeError, match=r"optimizer\.name is stable_adamw, which needs torch-optimi: pip"):
        trainer_settings(load([], ["optimizer.name=stable_adamw"]))
