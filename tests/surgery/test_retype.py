"""Retyped modules: their class, name and signature, and whom a technique takes for stock."""

import copy
import inspect
import pickle
from itertools import permutations

import pytest
import torch
from families import build
from torch import nn
from transformers.models.bert.modeling_bert import BertIntermediate

from cadenza.algorithms import apply_glu
from cadenza.surgery import Conflict, Mixin, NoEffect, Stage, SurgeryError, mix, stock_class
from cadenza.surgery.retype import bound, is_stock, retype, unmix


class Plain(nn.Module):
    def forward(self, x, scale=2.0, *, shift=0.0, **kwargs):
        return x * scale + shift


class Other(Plain):
    pass


class Tripled(Mixin, of="triple", stage=Stage.PRECISION):
    def forward(self, x, scale=1.0, *args, extra=1, shift=5.0, **more):
        return 3 * super().forward(x, scale, *args, **more)


class Added(Mixin, of="add", stage=Stage.PRECISION):
    def forward(self, x, *args, last=None, **kwargs):
        return super().forward(x, *args, **kwargs) + 1


class Silent(Mixin, of="silence", stage=Stage.PRECISION):
    label = "silent"


class Zeroed(Mixin, of="zero", stage=Stage.QUANTIZE):
    def forward(self, x, *args, **kwargs):
        return 0 * super().forward(x, *args, **kwargs)


class Negated(Mixin, of="negate", stage=Stage.STRUCTURE):
    def forward(self, x, *args, **kwargs):
        return -x


class Inverted(Mixin, of="invert", stage=Stage.STRUCTURE):
    def forward(self, x, *args, **kwargs):
        return 1 / x


class Sometimes(Mixin, of="sometimes", stage=Stage.PRECISION, replaces=True):
    def forward(self, x, *args, **kwargs):
        return x if self.training else super().forward(x, *args, **kwargs)


class AlsoSometimes(Sometimes):
    """Inherits the forward and what it may do."""

    def forward(self, x, *args, **kwargs):
        return super().forward(x, *args, **kwargs)


def test_a_retyped_module_goes_by_its_stock_name():
    module = Plain()
    mix(module, Tripled)
    mix(module, Added)
    assert (type(module).__name__, type(module).__qualname__) == ("Plain", "Plain")
    assert type(module).__module__ == Plain.__module__
    assert module._get_name() == "AddedTripledPlain"
    assert isinstance(module, Plain)
    assert stock_class(module) is Plain


def test_mixins_come_by_name_whatever_came_first():
    one, two = Plain(), Plain()
    for module, mixins in ((one, (Tripled, Added)), (two, (Added, Tripled))):
        for mixin in mixins:
            mix(module, mixin)
    assert type(one) is type(two)
    assert one(torch.ones(1)) == two(torch.ones(1)) == 3 * 1 + 1


@pytest.mark.parametrize("mixins", list(permutations((Added, Zeroed, Tripled))))
def test_a_later_stage_stands_in_front_whatever_came_first(mixins):
    module = Plain()
    for mixin in mixins:
        mix(module, mixin)
    assert module._get_name() == "ZeroedAddedTripledPlain"
    assert module(torch.ones(1)) == 0


@pytest.mark.parametrize(("first", "second"), list(permutations((Negated, Inverted))))
def test_a_mixin_that_calls_no_other_stands_innermost_or_is_refused(first, second):
    module = Plain()
    mix(module, Added)
    mix(module, first)
    assert module(torch.full((1,), 2.0)) == {Negated: -2, Inverted: 0.5}[first] + 1
    before = type(module)
    message = r"^Plain: invert and negate both replace what it computes; undo one of them first$"
    with pytest.raises(Conflict, match=message):
        mix(module, second)
    assert type(module) is before


@pytest.mark.parametrize("mixin", [Sometimes, AlsoSometimes])
def test_a_mixin_that_calls_the_next_forward_in_some_cases_alone_says_so(mixin):
    """The code of its forward has a call of `super`, so the code can't tell."""
    module = Plain()
    mix(module, Negated)
    message = r"^Plain: sometimes and negate both replace what it computes; undo one of them first$"
    with pytest.raises(Conflict, match=message):
        mix(module, mixin)
    later = Plain()
    mix(later, mixin)
    mix(later, Zeroed)
    assert later(torch.ones(1)) == 0


def test_the_signature_is_the_stock_one_and_what_mixins_add_by_keyword():
    module = Plain()
    mix(module, Tripled)
    mix(module, Added)
    parameters = inspect.signature(type(module).forward).parameters
    assert list(parameters) == ["self", "x", "scale", "shift", "last", "extra", "kwargs"]
    assert (parameters["scale"].default, parameters["shift"].default) == (2.0, 0.0)
    assert parameters["extra"].kind is inspect.Parameter.KEYWORD_ONLY


def test_a_mixin_without_a_forward_leaves_the_stock_one():
    module = Plain()
    mix(module, Silent)
    assert type(module).forward is Plain.forward
    assert module.label == "silent"
    mix(module, Tripled)
    assert module(torch.ones(1)) == 3
    assert list(inspect.signature(type(module).forward).parameters)[-2:] == ["extra", "kwargs"]


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_keep_class_and_state(clone):
    module = nn.Linear(2, 2)
    mix(module, Added)
    copied = clone(module)
    assert type(copied) is type(module)
    assert torch.equal(copied.weight, module.weight)
    assert copied.weight is not module.weight


def test_mixins_move_to_another_stock_class():
    module = Plain()
    mix(module, Tripled)
    retype(module, Other)
    assert stock_class(module) is Other
    assert module(torch.ones(1)) == 3
    plain = Plain()
    retype(plain, Other)
    assert type(plain) is Other


def test_a_call_by_name():
    module = Plain()
    mix(module, Tripled)
    assert bound(module, (1, 2), {"shift": 3, "more": 4}) == ({"x": 1, "scale": 2, "shift": 3}, {"more": 4})
    assert bound(module, (1,), {}) == ({"x": 1}, {})


def test_the_class_of_a_retyped_module_makes_stock_ones():
    """Also from a config, as peers' tests and `from_pretrained` do."""
    module = nn.Linear(2, 2)
    mix(module, Added)
    made = type(module)(3, out_features=4)
    assert type(made) is nn.Linear
    assert made.weight.shape == (4, 3)
    assert inspect.signature(type(module)) == inspect.signature(nn.Linear)
    model = build("bert")
    apply_glu(model)
    fresh = model.__class__._from_config(model.config)
    assert {type(m) for m in fresh.modules()} == {type(m) for m in build("bert").modules()}
    assert len(apply_glu(fresh)) == 4


def test_a_class_made_of_a_retyped_one_is_refused():
    """A parametrization made it, for example: to drop it would leave a module without its weight."""
    module = nn.Linear(2, 2)
    mix(module, Added)
    module.__class__ = derived = type("FromOutside", (type(module),), {})
    for change in (lambda: mix(module, Silent), lambda: unmix(module, Added), lambda: derived(2, 2)):
        with pytest.raises(SurgeryError, match="FromOutside was made of a class after surgery"):
            change()
    assert type(module) is derived
    assert stock_class(module) is nn.Linear


class Subclassed(BertIntermediate):
    """A user's, which may have a forward of its own."""


def test_a_stock_module_is_a_class_of_transformers_by_its_name():
    stock = build("bert").bert.encoder.layer[0].intermediate
    namesake = type("BertIntermediate", (BertIntermediate,), {"__module__": __name__})
    assert is_stock(stock, "BertOutput", "BertIntermediate")
    assert not is_stock(stock, "BertOutput")
    mix(stock, Silent)
    assert is_stock(stock, "BertIntermediate")
    for cls in (Subclassed, namesake):
        stock.__class__ = cls
        assert not is_stock(stock, "BertIntermediate")


def test_a_users_subclass_is_left_alone():
    model = build("bert", num_hidden_layers=1)
    layer = model.bert.encoder.layer[0]
    for module in (layer.intermediate, layer.output):
        name = type(module).__name__
        module.__class__ = type(name, (type(module),), {"__module__": "mine"})
    with pytest.raises(NoEffect):
        apply_glu(model)
