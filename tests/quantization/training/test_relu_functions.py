"""What gives no negative numbers, and what keeps them away, function by function."""

import operator
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cadenza.quantization.signs.nonnegative import nonnegative_inputs

GIVE = {
    "nn.ReLU": nn.ReLU(),
    "nn.ReLU6": nn.ReLU6(),
    "nn.Sigmoid": nn.Sigmoid(),
    "nn.Softmax": nn.Softmax(-1),
    "F.relu": F.relu,
    "F.relu_": F.relu_,
    "F.relu6": F.relu6,
    "F.softmax": lambda x: F.softmax(x, -1),
    "torch.relu": torch.relu,
    "torch.relu_": torch.relu_,
    "torch.sigmoid": torch.sigmoid,
    "torch.softmax": lambda x: torch.softmax(x, -1),
    "torch.square": torch.square,
    "torch.abs": torch.abs,
    "relu": lambda x: x.relu(),
    "relu_": lambda x: x.relu_(),
    "sigmoid": lambda x: x.sigmoid(),
    "softmax": lambda x: x.softmax(-1),
    "square": lambda x: x.square(),
    "abs": lambda x: x.abs(),
}
POOLS = {
    f"nn.{kind}Pool{n}d": getattr(nn, f"{kind}Pool{n}d")(2)
    for kind in ("Max", "Avg", "AdaptiveMax", "AdaptiveAvg")
    for n in (1, 2, 3)
}
KEEP = {
    **POOLS,
    "nn.Identity": nn.Identity(),
    "nn.Flatten": nn.Flatten(),
    **{f"nn.{cls.__name__}": cls() for cls in (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)},
    "F.dropout": F.dropout,
    "F.max_pool2d": lambda x: F.max_pool2d(x, 2),
    "F.avg_pool2d": lambda x: F.avg_pool2d(x, 2),
    "F.adaptive_avg_pool2d": lambda x: F.adaptive_avg_pool2d(x, 2),
    "F.adaptive_max_pool2d": lambda x: F.adaptive_max_pool2d(x, 2),
    "torch.flatten": lambda x: torch.flatten(x, 1),
    "torch.reshape": lambda x: torch.reshape(x, (-1, 4)),
    "torch.mean": lambda x: torch.mean(x, -1),
    "torch.sum": lambda x: torch.sum(x, -1),
    "torch.transpose": lambda x: torch.transpose(x, -1, -2),
    "torch.permute": lambda x: torch.permute(x, (1, 0)),
    "torch.cat": lambda x: torch.cat([x, x]),
    "torch.concat": lambda x: torch.concat([x, x]),
    "+": lambda x: x + 1,
    "1 +": lambda x: 1 + x,
    "*": lambda x: 2.0 * x,
    "torch.add": lambda x: torch.add(x, x, alpha=2),
    "torch.mul": lambda x: torch.mul(x, 0.5),
    "[]": lambda x: x[:, -1],
    "view": lambda x: x.view(-1, 4),
    "reshape": lambda x: x.reshape(-1, 4),
    "flatten": lambda x: x.flatten(1),
    "permute": lambda x: x.permute(1, 0),
    "transpose": lambda x: x.transpose(-1, -2),
    "contiguous": lambda x: x.contiguous(),
    "mean": lambda x: x.mean(-1),
    "sum": lambda x: x.sum(-1),
    "squeeze": lambda x: x.squeeze(-1),
    "unsqueeze": lambda x: x.unsqueeze(-1),
    "to": lambda x: x.to(torch.float64),
    "float": lambda x: x.float(),
    "add": lambda x: x.add(0),
    "mul": lambda x: x.mul(x),
    "clone": lambda x: x.clone(),
    "expand": lambda x: x.expand(-1, 4),
}


class Before(nn.Module):
    """A layer behind `does`, which gets what comes in, and its ReLU."""

    def __init__(self, does):
        super().__init__()
        self.last, self.does = nn.Linear(4, 4), does

    def forward(self, x):
        return self.last(self.does(x, F.relu(x)))


def never_negative(does):
    return "last" in nonnegative_inputs(Before(does))


@pytest.mark.parametrize("name", GIVE)
def test_these_give_no_negative_numbers(name):
    module = nn.Sequential(GIVE[name], nn.Linear(4, 4)) if isinstance(GIVE[name], nn.Module) else None
    assert "1" in nonnegative_inputs(module) if module else never_negative(lambda x, _: GIVE[name](x))


@pytest.mark.parametrize("name", KEEP)
def test_these_give_none_where_they_get_none(name):
    does = KEEP[name]
    if isinstance(does, nn.Module):
        assert "2" in nonnegative_inputs(nn.Sequential(nn.ReLU(), does, nn.Linear(4, 4)))
        assert "1" not in nonnegative_inputs(nn.Sequential(does, nn.Linear(4, 4)))
    else:
        assert never_negative(lambda _, r: does(r))
        assert not never_negative(lambda x, _: does(x))


@pytest.mark.parametrize(
    "does",
    [
        lambda x, r: r + x,
        lambda x, r: x * r,
        lambda x, r: torch.cat([r, x]),
        lambda x, r: r - 1,
        lambda x, r: -r,
        lambda x, r: r + (-0.5),
        lambda x, r: -0.5 + r,
        lambda x, r: r * -1,
        lambda x, r: torch.mul(r, -2),
        lambda x, r: torch.add(r, r, alpha=-1),
        lambda x, r: torch.add(r, other=-1),
        lambda x, r: r.add(-1),
        lambda x, r: r.mul(-1.0),
        lambda x, r: r.add(x),
        lambda x, r: r.tanh(),
    ],
)
def test_these_may_give_some(does):
    assert not never_negative(does)


def changed_elsewhere(change):
    """The ReLU goes on after `change` was done with it."""

    def does(x, r):
        change(x, r)
        return r

    return never_negative(does)


@pytest.mark.parametrize("change", [operator.iadd, operator.isub, operator.imul, operator.itruediv])
def test_what_is_changed_in_place_counts_as_unknown(change):
    assert not changed_elsewhere(lambda x, r: change(r, x))
    assert changed_elsewhere(lambda x, r: change(x, r)), "here it is only read"


def test_sums_in_place_of_two_keep_negative_numbers_away():
    assert never_negative(lambda x, r: operator.iadd(r, x.abs()))
    assert never_negative(lambda x, r: operator.imul(operator.iadd(r, 1), 2))
    assert not never_negative(lambda x, r: operator.iadd(r, x))
    assert not never_negative(lambda x, r: operator.iadd(r, -1))
    assert not never_negative(lambda x, r: operator.isub(r, 1))


def test_methods_that_change_in_place():
    assert not changed_elsewhere(lambda x, r: r.sub_(1))
    assert changed_elsewhere(lambda x, r: r.sub(1))
    assert changed_elsewhere(lambda x, r: r.relu_())


class Called(nn.Module):
    """A module that is called in the way of `forward`."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)


class Two(Called):
    def forward(self, x, y, mask=None, *, scale=None):
        return self.b(F.relu(self.a(x)) + y.abs())


class Any(Called):
    def forward(self, *inputs, **options):
        return self.b(F.relu(self.a(inputs[0])))


class One(Called):
    def forward(self, x):
        return self.b(F.relu(self.a(x)))


class ByName(Called):
    def forward(self, x):
        return self.b(input=F.relu(self.a(x)))


class Nothing(Called):
    def forward(self, x):
        return self.b(F.relu(self.a(torch.ones(4)))) + self.a(self.b.weight)


class Warns(Called):
    def forward(self, x):
        warnings.warn("of what it gets", stacklevel=1)
        return self.b(F.relu(self.a(x)))


def test_tracing_is_silent():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert nonnegative_inputs(nn.Sequential(Warns())) == {"0.b"}


@pytest.mark.parametrize(("cls", "found"), [(Two, {"b"}), (Any, {"b"}), (One, {"b"}), (ByName, set())])
def test_any_signature_is_traced(cls, found):
    assert nonnegative_inputs(cls()) == found


def test_parameters_and_constants_are_unknown():
    assert nonnegative_inputs(Nothing()) == {"b"}


def test_hooks_may_change_what_they_get_and_do_not_run():
    model, seen = nn.Sequential(One()), []
    for module in model.modules():
        module.register_forward_hook(lambda *_: seen.append(1))
        module.register_forward_pre_hook(lambda *_: seen.append(1))
    assert nonnegative_inputs(model) == set()
    assert seen == []
