"""The seam: open, it changes nothing; both registries; cross-attention; what it can't lead."""

import copy

import pytest
import torch
from attention_calls import Attention
from families import CONFIGS, batch, build
from torch import nn
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    BartConfig,
    BartModel,
    BertConfig,
    BertLMHeadModel,
    FNetConfig,
    FNetModel,
    GPT2Config,
    GPT2LMHeadModel,
)

from cadenza.algorithms import (
    apply_alibi,
    apply_anchor_attention,
    apply_bf16_safe_rope,
    apply_flash_attention,
    apply_unpadding,
)
from cadenza.attention import AttentionPlan, BatchPlan, attention_modules, open_seam
from cadenza.attention.documents import Documents
from cadenza.attention.modules import SEAM, SEAMS, base_models
from cadenza.attention.seam import attend
from cadenza.surgery import NoEffect, SurgeryError

TINY = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


def outputs(model, family, padding):
    inputs = batch(family, padding=padding)
    model.zero_grad()
    out = model(**inputs)
    out.loss.backward()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return out.logits, gradients


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("padding", [None, "right", "left"])
def test_an_empty_plan_equals_stock(family, attention, padding):
    model = build(family, attention=attention)
    logits, gradients = outputs(model, family, padding)
    (close,) = open_seam(model)
    assert model.config._attn_implementation == SEAMS[attention]
    assert len(list(attention_modules(model))) == (1 if family == "albert" else 2)
    through, theirs = outputs(model, family, padding)
    assert torch.equal(logits, through)
    assert gradients.keys() == theirs.keys()
    assert all(torch.equal(gradients[name], theirs[name]) for name in gradients)
    close()
    assert model.config._attn_implementation == attention


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_an_empty_plan_leaves_the_causal_mask_to_the_kernel(family, monkeypatch):
    """Written out it would take quadratic memory."""
    sdpa, seen = nn.functional.scaled_dot_product_attention, []

    def watched(*args, attn_mask=None, is_causal=False, **options):
        seen.append((attn_mask, is_causal))
        return sdpa(*args, attn_mask=attn_mask, is_causal=is_causal, **options)

    monkeypatch.setattr(nn.functional, "scaled_dot_product_attention", watched)
    model = build(family)
    list(open_seam(model))
    model(batch(family, padding=None)["input_ids"])
    assert seen == [(None, True)] * 2


@pytest.mark.parametrize("name", SEAMS.values())
def test_both_registries_know_the_seam(name):
    assert name in list(AttentionInterface())
    assert name in list(AttentionMaskInterface())


def test_the_seam_is_really_walked(monkeypatch):
    import cadenza.attention.seam as seam

    seen = []
    attend = seam.attend
    monkeypatch.setitem(
        AttentionInterface._global_mapping, SEAM, lambda *a, **k: seen.append(1) or attend(*a, **k)
    )
    model = build("bert")
    list(open_seam(model))
    model(**batch("bert"))
    assert len(seen) == 2


def test_the_config_is_saved_as_stock(tmp_path):
    model = build("bert")
    apply_alibi(model)
    model.config.save_pretrained(tmp_path)
    assert SEAM not in (tmp_path / "config.json").read_text()


def test_cross_attention_stays_stock():
    config = BertConfig(vocab_size=50, is_decoder=True, add_cross_attention=True, **TINY)
    model = BertLMHeadModel(config).eval()
    report = apply_alibi(model)
    assert sum("attention" in change.path.lower() for change in report.changes) == 1
    ids, memory = torch.tensor([[4, 5, 6]]), torch.randn(1, 7, 16)
    assert model(ids, encoder_hidden_states=memory).logits.isfinite().all()


def test_a_copy_has_a_seam_of_its_own():
    model = build("bert")
    report = apply_alibi(model)
    copied = copy.deepcopy(model)
    expected = copied(**batch("bert")).logits
    report.undo()
    assert torch.equal(expected, copied(**batch("bert")).logits)


def test_other_implementations_are_refused():
    model = build("llama", attention="flex_attention")
    with pytest.raises(SurgeryError, match="attn_implementation='flex_attention': load the model with"):
        apply_alibi(model)


@pytest.mark.parametrize("apply", [apply_alibi, apply_flash_attention, apply_anchor_attention])
def test_cross_attention_known_by_an_attribute_stays_stock(apply):
    """GPT-2's has the class of its self-attention."""
    config = GPT2Config(vocab_size=50, n_embd=16, n_layer=1, n_head=2, add_cross_attention=True)
    model = GPT2LMHeadModel(config).eval()
    apply(model)
    block = model.transformer.h[0]
    assert block.attn.attention_plan.claims()
    assert not block.crossattention.attention_plan.claims()


def test_cross_attention_has_no_documents():
    class CrossAttention(Attention):
        pass

    module, qkv = CrossAttention(False, 1), torch.zeros(3, 1, 2, 5, 4)
    documents = Documents((5,), torch.device("cpu"))
    with pytest.raises(SurgeryError, match="cross-attention can't be computed by document"):
        attend(module, *qkv, None, documents=documents)


def test_models_without_a_base_that_can_be_led():
    """Encoder-decoders, whose layers get their tokens from two sides, and models without attention."""
    bart = BartModel(
        BartConfig(vocab_size=50, d_model=16, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=16)
    )
    fnet = FNetModel(FNetConfig(vocab_size=50, **{k: v for k, v in TINY.items() if "heads" not in k}))
    assert any(attention_modules(bart))
    for model in (bart, fnet):
        assert base_models(model) == []
        with pytest.raises(NoEffect):
            apply_unpadding(model)


def test_one_model_eager_and_one_sdpa_in_one():
    parts = {name: build("bert", attention=name) for name in ("eager", "sdpa")}
    before = {name: model(**batch("bert")).logits for name, model in parts.items()}
    (close,) = open_seam(nn.ModuleDict(parts))
    for name, model in parts.items():
        assert {m.attention_plan.stock for m in attention_modules(model)} == {name}
        assert model.bert.batch_plan.stock == name
        assert torch.equal(model(**batch("bert")).logits, before[name])
    close()
    close()  # nothing left to do
    assert [model.config._attn_implementation for model in parts.values()] == ["eager", "sdpa"]


def test_a_seam_that_is_open_stays_as_it_is():
    model = build("bert")
    report = apply_alibi(model)
    (close,) = open_seam(model)
    close()
    assert model.config._attn_implementation == SEAM, "alibi still has its claim"
    report.undo()
    assert model.config._attn_implementation == "sdpa"
    assert "batch_plan" not in vars(model.bert)


def test_positions_that_do_not_arrive_are_missed():
    model = build("llama")
    apply_bf16_safe_rope(model)
    hidden, turn = torch.zeros(1, 3, 32), torch.zeros(1, 3, 8)
    with pytest.raises(SurgeryError, match="an attention module got no exact positions"):
        model.model.layers[0].self_attn(hidden, position_embeddings=(turn, turn), attention_mask=None)


def test_claims_are_named():
    assert AttentionPlan("sdpa").claims() == []
    assert BatchPlan("eager", kernel="flex", packing=True).claims() == ["kernel='flex'", "packing=True"]


def sees(module, queries, **kwargs):
    """(queries, 5), whether each query sees each of five keys."""
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(2, 3, queries, 4, generator=generator)
    key = torch.randn(2, 3, 5, 4, generator=generator)
    value = torch.eye(5).expand(2, 3, 5, 5)
    return attend(module, query, key, value, None, **kwargs)[0].gt(0).all(2).all(0)


@pytest.mark.parametrize("stock", ["sdpa", "alibi"])
def test_without_a_mask_the_call_says_whether_it_is_causal_and_then_the_module(stock):
    every, causal = torch.ones(5, 5).bool(), torch.ones(5, 5).bool().tril()
    for default, given, seen in ((True, None, causal), (False, None, every), (True, False, every)):
        module = Attention(default, 1)
        module.attention_plan = module.attention_plan if stock == "alibi" else AttentionPlan("sdpa")
        assert torch.equal(sees(module, 5, is_causal=given), seen)
    module = Attention(False, 1)
    assert torch.equal(sees(module, 5, is_causal=True), causal)
    del module.is_causal
    assert torch.equal(sees(module, 5), causal), "as transformers has it"


def test_a_single_query_sees_every_cached_key():
    assert sees(Attention(True, 1), 1).all()


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_mask_to_be_added_takes_the_bias_along(attention):
    model = build("bert", attention=attention)
    apply_alibi(model)
    inputs = batch("bert")
    ids, real = inputs["input_ids"], inputs["attention_mask"].bool()
    added = torch.zeros(3, 1, 13, 13).masked_fill(~real[:, None, None], torch.finfo(torch.float32).min)
    expected = model(input_ids=ids, attention_mask=inputs["attention_mask"]).logits
    assert (model(input_ids=ids, attention_mask=added).logits - expected)[real].abs().max() < 1e-5
