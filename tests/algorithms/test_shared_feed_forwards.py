"""GLU on layers that share weights, and on layers of equal weights: ties stay, draws differ."""

import copy

import pytest
import torch
from families import batch, build
from torch import nn

from cadenza.algorithms import apply_glu, apply_vocab_padding
from cadenza.surgery import SurgeryError


def intermediates(model):
    return [layer.intermediate for layer in model.base_model.encoder.layer]


@pytest.mark.parametrize("size", [None, 0.5, 40])
def test_layers_that_share_weights_share_the_new_ones(size):
    model = build("bert", num_hidden_layers=3)
    first, second, third = model.bert.encoder.layer
    second.intermediate.dense.weight = first.intermediate.dense.weight
    second.output.dense.weight = first.output.dense.weight
    before = model.state_dict(keep_vars=True)
    report = apply_glu(model, intermediate_size=size)
    units = {None: 48, 0.5: 24, 40: 40}[size]
    for part, shape in (("intermediate", (2 * units, 32)), ("output", (32, units))):
        tied, other, apart = (getattr(layer, part).dense for layer in (first, second, third))
        assert tied.weight is other.weight
        assert tied.weight is not apart.weight
        assert (tied.weight.shape, tied.weight.shape) == (shape, apart.weight.shape)
        assert (other.out_features, other.in_features) == shape
    model(**batch("bert")).loss.backward()
    report.undo()
    after = model.state_dict(keep_vars=True)
    assert before.keys() == after.keys()
    assert all(after[name] is tensor for name, tensor in before.items())
    assert [i.dense.out_features for i in intermediates(model)] == [48] * 3


def test_an_optimizer_gets_a_shared_weight_once():
    model = build("bert")
    first, second = intermediates(model)
    second.dense.weight = first.dense.weight
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    apply_glu(model, optimizers=optimizer)
    held = [p for group in optimizer.param_groups for p in group["params"]]
    assert sum(p is first.dense.weight for p in held) == 1
    model(**batch("bert")).loss.backward()
    optimizer.step()
    assert torch.equal(first.dense.weight, second.dense.weight)


def test_a_layer_that_is_shared_as_a_module_is_gated_once():
    model = build("bert")
    first, second = intermediates(model)
    bias, second.dense = first.dense.bias, first.dense
    report = apply_glu(model)
    assert first.dense.weight.shape == (96, 32)
    assert model(**batch("bert")).logits.isfinite().all()
    report.undo()
    assert (first.dense.weight.shape, first.dense.out_features) == ((48, 32), 48)
    assert first.dense.bias is bias


def test_ties_across_models_stay():
    pair = nn.ModuleList([build("bert"), build("bert", seed=1)])
    one, two = (intermediates(model)[0] for model in pair)
    two.dense.weight = one.dense.weight
    apply_glu(pair)
    assert one.dense.weight is two.dense.weight


def test_a_weight_shared_with_another_kind_of_layer_is_refused():
    model = build("bert", intermediate_size=32)
    layer = model.bert.encoder.layer[0]
    layer.attention.output.dense.weight = layer.intermediate.dense.weight
    before = model.state_dict(keep_vars=True)
    message = r"layer\.0\.attention\.output\.dense\.weight is shared with a feed-forward that glu replaces"
    with pytest.raises(SurgeryError, match=message):
        apply_glu(model)
    after = model.state_dict(keep_vars=True)
    assert all(after[name] is tensor for name, tensor in before.items())


def test_equal_layers_get_other_draws():
    model = build("bert")
    first, second = intermediates(model)
    second.dense.weight.data.copy_(first.dense.weight)
    apply_glu(model)
    assert not torch.equal(first.dense.weight, second.dense.weight)


def test_a_draw_is_the_same_in_any_order_and_around_any_model():
    """With a head or without, within another module, before vocabulary padding or after it."""
    whole, around = build("bert"), nn.ModuleDict({"inner": build("bert")})
    base, padded = copy.deepcopy(whole.bert), build("bert")
    apply_vocab_padding(padded)
    for model in (whole, around, base, padded):
        apply_glu(model)
    expected = [each.dense.weight for each in intermediates(whole)]
    for model in (around["inner"], base, padded):
        found = [each.dense.weight for each in intermediates(model)]
        assert all(torch.equal(mine, theirs) for mine, theirs in zip(found, expected, strict=True))


def test_equal_tables_get_other_rows():
    model = build("bert", tie_word_embeddings=False)
    words, head = model.get_input_embeddings(), model.get_output_embeddings()
    head.weight.data.copy_(words.weight)
    apply_vocab_padding(model)
    assert torch.equal(head.weight[:90], words.weight[:90])
    assert not torch.equal(head.weight[90:], words.weight[90:])
