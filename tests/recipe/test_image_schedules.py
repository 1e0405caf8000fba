"""Optimizers, schedules and the published recipes of images."""

import math
from dataclasses import replace

import pytest
import torch
from paths import ROOT
from trainers import state_at

from cadenza.recipe import RecipeError, build, load
from cadenza.recipe.optimizers import optimizer_for
from cadenza.recipe.schedules import CosineWithCooldown, share
from cadenza.recipe.schema import Optimizer


@pytest.mark.parametrize("name", ["sgd", "adamw", "decoupled_adamw"])
@pytest.mark.parametrize("matrices_only", [True, False])
def test_what_decays(name, matrices_only):
    """Without a gradient a step does nothing but decay."""
    model = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3), torch.nn.Linear(3, 4))
    before = {key: p.detach().clone() for key, p in model.named_parameters()}
    section = Optimizer(name=name, lr=0.1, weight_decay=0.5, decay_matrices_only=matrices_only)
    optimizer = optimizer_for(section, model)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    kept = {key for key, p in model.named_parameters() if torch.equal(p, before[key])}
    flat = {"0.bias", "1.weight", "2.bias"}  # the norm's bias is zero in any case
    assert kept - {"1.bias"} == (flat if matrices_only else set())
    groups = optimizer.param_groups
    assert [group["weight_decay"] for group in groups] == ([0.5, 0.0] if matrices_only else [0.5])
    assert sum(len(group["params"]) for group in groups) == 6


@pytest.mark.parametrize("nesterov", [True, False])
def test_sgd_has_momentum(nesterov):
    """Two steps by hand; the weight decay is an L2 term."""
    section = Optimizer(name="sgd", lr=0.05, momentum=0.8, nesterov=nesterov, weight_decay=0.3)
    layer = torch.nn.Linear(1, 1, bias=False).double()
    torch.nn.init.constant_(layer.weight, 2.0)
    optimizer = optimizer_for(section, layer)
    weight, velocity = 2.0, 0.0
    for gradient in (1.0, -3.0):
        layer.weight.grad = torch.full_like(layer.weight, gradient)
        optimizer.step()
        slope = gradient + 0.3 * weight
        velocity = 0.8 * velocity + slope
        weight -= 0.05 * (slope + 0.8 * velocity if nesterov else velocity)
    assert layer.weight.item() == pytest.approx(weight, rel=1e-12)


def plain_rate(epoch, warm, cool, alpha):
    if epoch < warm:
        return epoch / warm
    cosine = alpha + (1 - alpha) * 0.5 * (1 + math.cos(math.pi * (epoch - warm) / (250 - warm - cool)))
    return cosine if epoch <= 250 - cool else alpha * (250 - epoch) / cool


TIMES = (0, 1, 25, 49, 50, 51, 700, 1025, 1999, 2000, 2001, 2400, 2499, 2500)


@pytest.mark.parametrize("end", ["250ep", "2500ba"])
@pytest.mark.parametrize(
    ("warmup", "cooldown"), [("5ep", "50ep"), ("50ba", "500ba"), ("0.02dur", "0.2dur"), ("50ba", "0.2dur")]
)
def test_cosine_with_cooldown(end, warmup, cooldown):
    schedule = CosineWithCooldown(warmup, cooldown, 0.1)
    found = [schedule(state_at(batch, end)) for batch in TIMES]
    assert found == pytest.approx([plain_rate(batch / 10, 5, 50, 0.1) for batch in TIMES], abs=1e-12)
    assert (found[0], found[4], found[-1]) == (0, 1, 0)


def test_cosine_without_warmup_and_cooldown():
    schedule = CosineWithCooldown("0ba", "0dur", 0.1)
    found = [schedule(state_at(batch)) for batch in TIMES]
    assert found == pytest.approx([plain_rate(batch / 10, 0, 0, 0.1) for batch in TIMES])
    assert found[-1] == pytest.approx(0.1)


def test_a_share_that_cannot_be_told():
    message = "scheduler: 10sp can't be converted to the unit of 250ep; use that unit, or write 0.05dur"
    with pytest.raises(RecipeError) as error:
        CosineWithCooldown("10sp", "0dur", 0.1)(state_at(1))
    assert str(error.value) == message
    with pytest.raises(RecipeError, match="5ep can't be converted to the unit of 100ba"):
        share("5ep", state_at(1, "100ba", per_epoch=None))
    assert share("1000sp", state_at(1, "5000sp")) == 0.2


RECIPES = {
    "bf16": {},
    "w8a8": {"weight_bits": 8, "activation_bits": 8},
    "w4a4": {"weight_bits": 4, "activation_bits": 4},
}


def published(name, small):
    quantized = [] if name == "bf16" else [f"quantization/{name}"]
    names = ["resnet50_bf16", *quantized, *(["scale/cpu_images"] if small else [])]
    return load([str(ROOT / f"yamls/{file}.yaml") for file in names], [])


@pytest.mark.parametrize("small", [False, True])
def test_the_recipes_differ_in_bits_alone(small):
    recipes = {name: published(name, small) for name in RECIPES}
    for name, bits in RECIPES.items():
        assert recipes[name].name == f"{'resnet10' if small and bits else 'resnet50'}-{name}"
        found = recipes[name].algorithms.get("quantization_aware_training", {})
        assert {key: found[key] for key in bits} == bits
        assert len(build.algorithms(recipes[name].algorithms)) == bool(bits)
    same = [replace(each, name="same", algorithms={}) for each in recipes.values()]
    assert same[0] == same[1] == same[2]
    assert (same[0].model.model_type == "resnet10") == small


@pytest.mark.parametrize("small", [False, True])
@pytest.mark.parametrize("name", ["w8a8", "w4a4"])
def test_the_recipes_calibrate_for_a_small_part_of_training(name, small):
    until = published(name, small).algorithms["quantization_aware_training"]["calibrate_until"]
    assert 0 < share(until, state_at(0, published(name, small).train.max_duration)) <= 0.1


def test_the_recipes_are_the_papers():
    recipe = published("bf16", small=False)
    assert (recipe.optimizer.momentum, recipe.optimizer.nesterov) == (0.9, True)
    assert recipe.optimizer.lr == 0.1 * recipe.train.global_batch_size / 256
    assert (recipe.optimizer.weight_decay, recipe.optimizer.decay_matrices_only) == (1e-4, True)
    assert (recipe.scheduler.t_warmup, recipe.scheduler.t_cooldown) == ("5ep", "50ep")
    assert recipe.train.max_duration == "250ep"
