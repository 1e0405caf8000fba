"""Which inputs are never negative, by torch.fx."""

import copy

import torch
import torch.nn.functional as F
from families import build
from torch import nn

from cadenza.algorithms import apply_quantization_aware_training
from cadenza.quantization.signs.nonnegative import nonnegative_inputs


class Tricky(nn.Module):
    """Inputs that are negative, that aren't, and that look as if they weren't."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c, self.d, self.e, self.f, self.g, self.h = (nn.Linear(4, 4) for _ in range(8))
        self.norm = nn.LayerNorm(4)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x, y=None):
        x, _ = x if isinstance(x, tuple) else (x, None)
        x = self.act(self.a(x))
        z = self.b(x)  # after a ReLU
        x = x + F.relu(z)
        x = self.c(F.dropout(x.view(-1, 4), 0.1).reshape(1, -1, 4))  # after a sum of two
        w = self.d(x.sigmoid())
        v = self.e(self.norm(F.relu(w)))  # a norm in between
        u = torch.relu(v)
        u.sub_(1)
        u = self.f(u)  # changed in place after the ReLU
        t = self.g(F.relu(u) - 0.5)
        return self.h(F.relu(t)) + self.h(t)  # called with both


def test_tracing_finds_what_is_never_negative():
    assert nonnegative_inputs(Tricky()) - {"norm", "act"} == {"b", "c", "d"}


def test_tracing_goes_on_below_what_it_cannot_trace():
    class Branches(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            return self.inner(x) if x.sum() > 0 else x

    layers = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    for depth in range(1, 4):  # each of these can't be traced, and neither can the one in it
        layers = Branches(layers)
        assert nonnegative_inputs(layers) == {"inner." * depth + "2"}
    relu = nonnegative_inputs(build("bert", hidden_act="relu"))
    gelu = nonnegative_inputs(build("bert"))
    assert {p for p in relu - gelu if p.endswith("dense")} == {
        f"bert.encoder.layer.{i}.output.dense" for i in range(2)
    }


def test_tracing_leaves_the_model_alone():
    model = Tricky()
    seen = []
    model.a.register_forward_hook(lambda *_: seen.append(1))
    state = copy.deepcopy(model.state_dict())
    nonnegative_inputs(model)
    assert not seen
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())


def test_resnet_inputs_but_the_first_are_unsigned():
    from cadenza.models import resnet

    model = resnet("resnet18", 1.0, 10, 3)
    report = apply_quantization_aware_training(model)
    signed = [path for path, m in model.named_modules() if hasattr(m, "unsigned") and not m.unsigned]
    assert signed == ["module.conv1"]
    assert len(report) == 21
    assert "20 with inputs that are never negative" in str(report)
