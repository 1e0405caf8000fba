"""A model's config is its own: what a surgery changes there, no other model sees."""

import copy

import pytest
import torch
from cases import CASES, PAIRS
from families import CONFIGS, batch, build
from transformers import BertConfig, BertForMaskedLM

from cadenza.algorithms import apply_alibi, apply_bf16_safe_rope, apply_unpadding, apply_vocab_padding
from cadenza.surgery import SurgeryError

IDS = torch.randint(3, 90, (2, 9), generator=torch.Generator().manual_seed(0))


def two_of_one_config(family):
    first = build(family)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        second = type(first)(first.config).eval()
    assert second.config is first.config
    return first, second


@pytest.mark.parametrize(("name", "family"), PAIRS)
def test_another_model_of_the_config_stays_stock(name, family):
    first, second = two_of_one_config(family)
    before, fields = second(**batch(family)), second.config.to_dict()
    CASES[name].apply(first)
    after = second(**batch(family))
    assert torch.equal(after.logits, before.logits)
    assert torch.equal(after.loss, before.loss)
    assert second.config.to_dict() == fields
    assert len(CASES[name].apply(second)) > 0


@pytest.mark.parametrize("family", CONFIGS)
def test_modules_go_on_sharing_their_config(family):
    model = build(family)
    apply_vocab_padding(model)
    apply_alibi(model)
    holders = [m for m in model.modules() if hasattr(vars(m).get("config"), "to_dict")]
    assert {id(m.config) for m in holders} == {id(model.config)}


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("copied", [False, True])
def test_a_new_model_of_a_changed_model_s_config_is_stock(attention, copied):
    changed = build("bert", attention=attention)
    apply_alibi(changed)
    config = copy.deepcopy(changed.config) if copied else changed.config
    new, stock = BertForMaskedLM(config).eval(), build("bert", attention=attention)
    new.load_state_dict(stock.state_dict())
    assert torch.equal(new(IDS).logits, stock(IDS).logits)
    apply_unpadding(new)
    assert (new(IDS).logits - stock(IDS).logits).abs().max() < 1e-5


TECHNIQUES = {
    "alibi": ("bert", apply_alibi),
    "rope": ("llama", apply_bf16_safe_rope),
    "un": ("bert", apply_unpadding),
}


@pytest.mark.parametrize(("family", "apply"), TECHNIQUES.values(), ids=TECHNIQUES)
@pytest.mark.parametrize("first", ["sdpa", "eager"])
@pytest.mark.parametrize("then", ["sdpa", "eager"])
@pytest.mark.parametrize("how", ["method", "config"])
def test_a_technique_stays_behind_another_implementation(family, apply, first, then, how):
    model, other = build(family, attention=first), build(family, attention=then)
    report = apply(model)
    apply(other)
    if how == "method":
        model.set_attn_implementation(then)
    else:
        model.config._attn_implementation = then
    inputs = batch(family)
    assert torch.equal(model(**inputs).logits, other(**inputs).logits)
    report.undo()
    assert model.config._attn_implementation == then


def test_attention_weights_are_to_be_had_that_way():
    model = build("bert")
    apply_alibi(model)
    model.set_attn_implementation("eager")
    weights = model(IDS, output_attentions=True).attentions
    assert len(weights) == 2
    assert torch.allclose(weights[0].sum(-1), torch.ones(()))


def test_other_implementations_are_refused_and_nothing_changes():
    model = build("llama")
    apply_alibi(model)
    before = model(IDS).logits
    with pytest.raises(SurgeryError, match="attn_implementation='flex_attention': load the model with"):
        model.set_attn_implementation("flex_attention")
    assert torch.equal(model(IDS).logits, before)
    model.config._attn_implementation = "flex_attention"
    with pytest.raises(SurgeryError, match="attn_implementation='flex_attention': load the model with"):
        model(IDS)


def test_a_config_is_copied_once():
    model = BertForMaskedLM(
        BertConfig(vocab_size=90, hidden_size=16, num_attention_heads=2, num_hidden_layers=1)
    )
    given = model.config
    apply_alibi(model)
    own = model.config
    apply_vocab_padding(model)
    assert own is model.config
    assert own is not given
    assert given.vocab_size == 90
