"""Inputs that turn negative on the way: no layer behind them may be taken for unsigned."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cadenza.algorithms import apply_quantization_aware_training, set_activation_bounds
from cadenza.quantization.signs.nonnegative import nonnegative_inputs


class Between(nn.Module):
    """A layer `b` behind `does`, which gets the module, its input and a ReLU of layer `a`."""

    def __init__(self, does, **modules):
        super().__init__()
        self.a, self.b, self.does = nn.Linear(8, 16), nn.Linear(16, 4), does
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, x):
        return self.b(self.does(self, x, F.relu(self.a(x))))


def after(change, of=lambda y: y):
    """`of(y)`, or y itself, is changed after it was computed, and y is used."""

    def does(_, x, y):
        change(of(y))
        return y

    return does


def floor_divided(y):
    y //= -1


def set_data(y):
    y.data = -y


def set_item(y):
    y[0] = -1


class Subtracts(nn.Module):
    def forward(self, x):
        return x.sub_(1)


class Branches(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x) if x.sum() > 0 else self.inner(-x)


IN_PLACE = {
    "view": after(lambda y: y.sub_(1), lambda y: y.view(-1, 16)),
    "detach": after(lambda y: y.sub_(1), lambda y: y.detach()),
    "data": after(lambda y: y.sub_(1), lambda y: y.data),
    "chunk": after(lambda y: y.sub_(1), lambda y: y.chunk(2, 1)[0]),
    "getitem": after(lambda y: y.sub_(1), lambda y: y[0]),
    "floor_divided": after(floor_divided, lambda y: y.view(-1, 16)),
    "set_data": after(set_data),
    "set_item": after(set_item),
    "copy_": after(lambda y: y.copy_(-y)),
    "out": after(lambda y: torch.sub(y, 1, out=y)),
    "foreach": after(lambda y: torch._foreach_sub_([y], 1)),
    "tensor_method": after(lambda y: torch.Tensor.sub_(y, 1)),
    "functional": after(lambda y: F.elu_(y.sub_(1))),
    "relu in place": lambda m, x, y: (z := m.a(x), r := F.relu(z, inplace=True), z.sub_(1), r)[-1],
}
VALUES = {
    "where": lambda m, x, y: torch.where(y > 1, y, -y),
    "sub other": lambda m, x, y: torch.sub(y, other=3),
    "mul other": lambda m, x, y: y.mul(other=-1),
    "max": lambda m, x, y: torch.max(x.repeat(1, 2), -y),
    "constant": lambda m, x, y: y * torch.tensor(-1.0),
    "half": lambda m, x, y: y.sigmoid() - 0.5,
    "divisor": lambda m, x, y: F.avg_pool2d(y[None, None], 1, divisor_override=-1)[0, 0],
    "divisor by place": lambda m, x, y: F.avg_pool2d(y[None, None], 1, 1, 0, False, True, -1)[0, 0],
    "int8": lambda m, x, y: (300 * y).to(torch.int8).float(),
    "sum in int8": lambda m, x, y: (300 * y)[None].sum(0, dtype=torch.int8).float(),
    "bits": lambda m, x, y: y.view(torch.bfloat16).float()[:, :16],
    "eval mode": lambda m, x, y: y if m.training else -y,
}


@pytest.mark.parametrize("name", [*IN_PLACE, *VALUES])
def test_what_may_be_negative_keeps_its_sign(name):
    assert "b" not in nonnegative_inputs(Between({**IN_PLACE, **VALUES}[name]))
    assert "b" in nonnegative_inputs(Between(lambda m, x, y: y)), "the comparison can fail"


def hooked(module, kind):
    getattr(module, f"register_forward_{kind}")(lambda module, *values: values[-1])
    return module


def patched(module):
    module.forward = lambda x: -x
    return module


@pytest.mark.parametrize(
    ("module", "behind"),
    [
        (hooked(nn.Identity(), "hook"), True),
        (hooked(nn.Sequential(nn.Identity()), "pre_hook"), True),
        (patched(nn.Identity()), True),
        (nn.AvgPool1d(1), True),
        (nn.MaxPool1d(2, 1, 1, dilation=2), True),
        (Subtracts(), False),
        (Branches(Subtracts()), False),
    ],
)
def test_modules_in_between_are_trusted_by_their_class_alone(module, behind):
    def does(m, x, y):
        z = m.between(y)
        return z if behind else y

    found = "b" in nonnegative_inputs(Between(does, between=module))
    assert found is isinstance(module, nn.AvgPool1d)


def test_hooks_on_the_layer_itself():
    model = Between(lambda m, x, y: y)
    hooked(model.b, "pre_hook")
    assert "b" not in nonnegative_inputs(model)


def test_a_layer_that_an_untraceable_module_calls_as_well():
    shared = nn.Linear(16, 16)
    model = Between(
        lambda m, x, y: (m.branches(m.a(x)), m.shared(y))[1], shared=shared, branches=Branches(shared)
    )
    assert "shared" not in nonnegative_inputs(model)


def test_a_later_change_does_not_matter_to_what_was_read_before():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(inplace=True), nn.Linear(4, 4))
    assert {"2", "4"} <= nonnegative_inputs(model)
    residual = Between(lambda m, x, y: F.relu(m.c(y).add_(y), inplace=True), c=nn.Linear(16, 16))
    assert {"b", "c"} <= nonnegative_inputs(residual)


def test_what_cannot_be_copied_is_signed():
    import threading

    model = Between(lambda m, x, y: y)
    model.lock = threading.Lock()
    assert nonnegative_inputs(model) == set()


@pytest.mark.parametrize("name", ["view", "where", "half", "out", "int8"])
def test_eight_bits_lose_little_of_what_is_negative(name):
    torch.manual_seed(0)
    model, x = Between({**IN_PLACE, **VALUES}[name]), torch.randn(64, 8)
    with torch.no_grad():
        full = model(x) - model.b.bias
        apply_quantization_aware_training(model, 8, 8, 8)
        for _ in range(3):
            model(x)
        set_activation_bounds(model)
        # Rounding to 8 bits: half a step of 1/127 of the bound, for inputs of both layers and for weights.
        assert (model(x) - model.b.bias - full).norm() < 4 / 127 * full.norm()
