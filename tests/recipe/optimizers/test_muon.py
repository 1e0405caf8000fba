"""Muon for the layers' matrices and AdamW for the rest: the update, the groups, surgeries, and resumes."""

import math

import pytest
import torch
from composer.optim import DecoupledAdamW
from families import build

from cadenza.algorithms import apply_alibi, apply_glu, apply_vocab_padding
from cadenza.recipe import RecipeError
from cadenza.recipe.optimizers import optimizer_for
from cadenza.recipe.optimizers.matrices import Stack, layer_matrices
from cadenza.recipe.schema import Optimizer

if not hasattr(torch.optim, "Muon"):
    pytest.skip("NOT VERIFIED HERE: torch.optim.Muon needs torch 2.9", allow_module_level=True)

A, B, C = 3.4445, -4.7750, 2.0315  # of the quintic iteration in torch.optim.Muon, torch 2.9 to 2.15
BF16 = 2**-8  # in which torch iterates; the reference is in float64


def orthogonal(matrix):
    """Five steps of the iteration, as torch's documentation says, for one matrix in float64."""
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / x.norm()
    for _ in range(5):
        gram = x @ x.T
        x = A * x + (B * gram + C * gram @ gram) @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x


def reference(weight, gradients, section, schedule, stack):
    """The matrix after a step for each gradient and multiplier of the schedule, each map by itself."""
    weight, momentum = weight.double(), torch.zeros_like(weight, dtype=torch.float64)
    lr, beta = section.muon_lr or section.lr, section.muon_momentum
    for gradient, now in zip(gradients, schedule, strict=True):
        momentum = beta * momentum + (1 - beta) * gradient.double()
        update = beta * momentum + (1 - beta) * gradient.double() if section.muon_nesterov else momentum
        parts = stack.pieces(update)
        rows, columns = parts[0].shape
        scale = {
            "match_rms_adamw": 0.2 * math.sqrt(max(rows, columns)),
            "original": math.sqrt(max(1, rows / columns)),
        }[section.muon_adjust_lr]
        step = torch.cat([orthogonal(part) for part in parts], stack.dim)
        weight = weight * (1 - section.weight_decay * now) - lr * now * scale * step
    return weight


SECTIONS = {
    "default": Optimizer(name="muon", lr=0.01, weight_decay=0.1),
    "other": Optimizer(
        name="muon",
        lr=0.01,
        muon_lr=0.03,
        muon_momentum=0.5,
        muon_nesterov=False,
        muon_adjust_lr="original",
        weight_decay=0.2,
    ),
}


@pytest.mark.parametrize("section", SECTIONS)
@pytest.mark.parametrize(
    ("family", "glu"), [("bert", False), ("bert", True), ("modernbert", False), ("gpt2", False)]
)
def test_the_update_of_every_parameter_against_a_plain_reference(family, glu, section):
    section, model = SECTIONS[section], build(family)
    if glu:
        apply_glu(model)
    stacks, optimizer = layer_matrices(model), optimizer_for(section, model)
    start = {p: p.detach().clone() for p in model.parameters()}
    others = {p: torch.nn.Parameter(value.clone()) for p, value in start.items() if p not in stacks}
    adamw = DecoupledAdamW(
        others.values(),
        lr=section.lr,
        betas=(0.9, 0.98),
        eps=section.eps,
        weight_decay=section.weight_decay,
    )
    schedule, given = (1.0, 0.25, 0.5), {p: [] for p in start}
    torch.manual_seed(1)
    for now in schedule:
        for parameter, seen in given.items():
            parameter.grad = torch.randn_like(parameter)
            seen.append(parameter.grad.clone())
            if parameter in others:
                others[parameter].grad = parameter.grad.clone()
        for each in (optimizer, adamw):
            for group in each.param_groups:
                group["lr"] = group["initial_lr"] * now
            each.step()
    assert len(stacks) > 4
    for parameter, first in start.items():
        if parameter in others:
            assert torch.equal(parameter, others[parameter])
            continue
        expected = reference(first, given[parameter], section, schedule, stacks[parameter])
        error, moved = (parameter - expected).norm(), (expected - first).norm()
        assert error < 8 * BF16 * moved
    counts = set(stacks.values())
    assert (
        counts
        == {
            ("bert", False): {Stack(1, 0)},
            ("bert", True): {Stack(1, 0), Stack(2, 0)},
            ("modernbert", False): {Stack(1, 0), Stack(2, 0), Stack(3, 0)},
            ("gpt2", False): {Stack(1, 1), Stack(3, 1)},
        }[family, glu]
    )


def held(optimizer, model):
    names = {p: name for name, p in model.named_parameters()}
    return {group["name"]: [names[p] for p in group["params"]] for group in optimizer.param_groups}


def test_only_the_matrices_of_layers_are_in_its_group():
    model = build("bert")
    section = Optimizer(name="muon", decay_matrices_only=True)
    optimizer = optimizer_for(section, model)
    groups = held(optimizer, model)
    assert sum(map(len, groups.values())) == len(list(model.parameters()))
    assert all(".layer." in name and name.endswith("weight") for name in groups["muon"])
    assert "bert.embeddings.word_embeddings.weight" in groups["adamw"]
    assert "cls.predictions.transform.dense.weight" in groups["adamw"]
    assert not any(name in groups["muon"] for name, p in model.named_parameters() if p.ndim != 2)
    decays = {group["name"]: group["weight_decay"] for group in optimizer.param_groups}
    assert decays == {"adamw": 1e-5, "adamw without decay": 0.0, "muon": 1e-5}
    assert optimizer.described().startswith("parameters by optimizer: adamw ")


@pytest.mark.parametrize("apart", [False, True])
def test_parameters_of_surgeries_get_into_the_group_of_their_kind(apart):
    """As if the optimizer was made after the surgeries, also after their undo."""
    section, model = Optimizer(name="muon", decay_matrices_only=apart), build("bert")
    optimizer = optimizer_for(section, model)
    stock = held(optimizer, model)
    reports = [apply(model, optimizers=optimizer) for apply in (apply_glu, apply_alibi, apply_vocab_padding)]
    optimizer.arrange()
    assert held(optimizer, model) == held(optimizer_for(section, model), model) != stock
    for report in reversed(reports):
        report.undo()
    optimizer.arrange()
    assert held(optimizer, model) == stock


def test_a_parameter_of_another_kind_moves_without_its_state():
    """A scale of two dimensions that a surgery would give to a linear layer, and a new matrix."""
    model = build("bert")
    optimizer = optimizer_for(Optimizer(name="muon", lr=1e-3), model)
    layer = model.bert.encoder.layer[0]
    layer.scale = torch.nn.Parameter(torch.ones(4, 1))
    layer.extra = torch.nn.Linear(8, 4, bias=False)
    adamw, muon = optimizer.param_groups
    muon["params"].insert(0, layer.scale)
    adamw["params"].insert(0, layer.extra.weight)
    optimizer.state[layer.scale] = {"momentum_buffer": torch.zeros(4, 1)}
    layer.scale.grad, layer.extra.weight.grad = torch.ones(4, 1), torch.randn(4, 8)
    optimizer.step()
    assert held(optimizer, model) == held(optimizer_for(Optimizer(name="muon"), model), model)
    assert set(optimizer.state[layer.scale]) == {"step", "exp_avg", "exp_avg_sq"}
    assert set(optimizer.state[layer.extra.weight]) == {"momentum_buffer"}
    assert torch.allclose(layer.scale, torch.tensor(1 - 1e-3), atol=1e-5)


def test_its_state_goes_through_a_file(tmp_path):
    def stepped(model, optimizer, seed):
        torch.manual_seed(seed)
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)
        optimizer.step()

    section = Optimizer(name="muon", lr=1e-2, muon_lr=3e-2)
    (one, two), makes = (build("bert"), build("bert", seed=8)), lambda model: optimizer_for(section, model)
    first = makes(one)
    stepped(one, first, 1)
    torch.save((one.state_dict(), first.state_dict()), tmp_path / "a.pt")
    weights, state = torch.load(tmp_path / "a.pt")
    two.load_state_dict(weights)
    second = optimizer_for(Optimizer(name="muon"), two)
    second.load_state_dict(state)
    for model, optimizer in ((one, first), (two, second)):
        stepped(model, optimizer, 2)
    for ours, theirs in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_model_without_layers_is_refused():
    with pytest.raises(RecipeError, match="the model has no trained matrices in layers of transformers"):
        optimizer_for(Optimizer(name="muon"), torch.nn.Linear(2, 2))
