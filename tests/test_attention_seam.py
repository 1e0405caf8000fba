"""The seam: open, it changes nothing; both registries; cross-attention; what it can't lead."""

import copy

import pytest
import torch
from families import CONFIGS, batch, build
from transformers import AttentionInterface, AttentionMaskInterface, BertConfig, BertLMHeadModel

from cadenza.algorithms import apply_alibi
from cadenza.surgery import SurgeryError, attention_modules, open_seam
from cadenza.surgery.attention import SEAM


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
    close = open_seam(model)
    assert model.config._attn_implementation == SEAM
    assert len(list(attention_modules(model))) == (1 if family == "albert" else 2)
    through, theirs = outputs(model, family, padding)
    assert torch.equal(logits, through)
    assert gradients.keys() == theirs.keys()
    assert all(torch.equal(gradients[name], theirs[name]) for name in gradients)
    close()
    assert model.config._attn_implementation == attention


def test_both_registries_know_the_seam():
    assert SEAM in list(AttentionInterface())
    assert SEAM in list(AttentionMaskInterface())


def test_the_seam_is_really_walked(monkeypatch):
    import cadenza.surgery.attention as seam

    seen = []
    attend = seam.attend
    monkeypatch.setitem(
        AttentionInterface._global_mapping, SEAM, lambda *a, **k: seen.append(1) or attend(*a, **k)
    )
    model = build("bert")
    open_seam(model)
    model(**batch("bert"))
    assert len(seen) == 2


def test_the_config_is_saved_as_stock(tmp_path):
    model = build("bert")
    apply_alibi(model)
    model.config.save_pretrained(tmp_path)
    assert SEAM not in (tmp_path / "config.json").read_text()


def test_cross_attention_stays_stock():
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = BertConfig(vocab_size=50, is_decoder=True, add_cross_attention=True, **sizes)
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
