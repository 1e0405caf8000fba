"""Which optimizer a recipe's section builds, and that each option arrives."""

from dataclasses import fields

import pytest
import torch
from composer.optim import DecoupledAdamW

from cadenza.recipe import RecipeError, load
from cadenza.recipe.optimizers import optimizer_for
from cadenza.recipe.schema import Optimizer
from cadenza.recipe.trainer import trainer_settings

ADAM = {"betas": (0.5, 0.6), "eps": 1e-3}
SGD = {"momentum": 0.7, "nesterov": True}
MUON = {"muon_lr", "muon_momentum", "muon_nesterov", "muon_adjust_lr"}  # in test_muon.py


@pytest.mark.parametrize(
    ("name", "cls", "own"),
    [
        ("decoupled_adamw", DecoupledAdamW, ADAM),
        ("adamw", torch.optim.AdamW, ADAM),
        ("sgd", torch.optim.SGD, SGD),
    ],
)
@pytest.mark.parametrize("apart", [False, True])
def test_optimizers_take_their_options(name, cls, own, apart):
    section = Optimizer(
        name=name, lr=0.3, weight_decay=0.25, decay_matrices_only=apart, betas=[0.5, 0.6], eps=1e-3, **SGD
    )
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1, bias=False))
    model.scale = torch.nn.Parameter(torch.tensor(2.0))
    optimizer = optimizer_for(section, model)
    assert type(optimizer) is cls
    decays = [0.25, 0.0] if apart else [0.25]
    for group, decay in zip(optimizer.param_groups, decays, strict=True):
        expected = {**own, "lr": 0.3, "weight_decay": decay}
        assert {key: group[key] for key in expected} == expected
    held = [[p.ndim for p in group["params"]] for group in optimizer.param_groups]
    assert held == ([[2, 2], [0, 1]] if apart else [[0, 2, 1, 2]])


def test_the_optimizer_tests_know_every_option():
    known = {"name", "lr", "weight_decay", "decay_matrices_only", *ADAM, *SGD, *MUON}
    assert {f.name for f in fields(Optimizer)} == known


def test_muon_where_it_cannot_train_is_refused_before_anything_is_built(monkeypatch):
    monkeypatch.setattr(torch.optim, "Muon", None, raising=False)
    sharded = load([], ["optimizer.name=muon", "train.parallelism_config={fsdp2: {}}"])
    with pytest.raises(
        RecipeError, match=r"optimizer\.name is muon, .*train\.parallelism_config shards them"
    ):
        trainer_settings(sharded)
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(RecipeError, match=r"optimizer\.name is muon, which needs torch 2\.9; this is torch"):
        trainer_settings(load([], ["optimizer.name=muon"]))
