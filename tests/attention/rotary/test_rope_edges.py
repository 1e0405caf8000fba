"""bf16_safe_rope at its edges: families, defaults, several models in one, what it refuses, what it keeps."""

import math
from types import SimpleNamespace

import pytest
import torch
from families import SIZES, batch, build
from transformers import Qwen2Config, Qwen2ForCausalLM

from cadenza.algorithms import BF16SafeRoPE, apply_bf16_safe_rope, check_rope
from cadenza.algorithms.alibi import WithoutRotation
from cadenza.attention import attention_modules
from cadenza.attention.plan import plan_of
from cadenza.attention.rotary.tables import frequencies, refuse_static, tables
from cadenza.surgery import Conflict, SurgeryError
from cadenza.surgery.retype import mix


def test_qwen2():
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(Qwen2Config(**SIZES, num_key_value_heads=2)).eval()
    ids = batch("llama", padding=None)["input_ids"]
    stock = model(ids).logits
    report = apply_bf16_safe_rope(model)
    assert len(report) == 3
    assert (model(ids).logits - stock).abs().max() < 1e-5
    assert check_rope(model) == 0


def test_positions_run_through_a_row_by_default():
    model = build("llama")
    apply_bf16_safe_rope(model)
    claimed = [*attention_modules(model), model.model]
    assert [plan_of(m).positions.per_document for m in claimed] == [False] * 3
    assert repr(BF16SafeRoPE()) == "BF16SafeRoPE(per_document=False)"
    assert repr(model.model.batch_plan.positions) == "bf16_safe_rope"


def test_per_document_reaches_every_plan():
    model = build("llama")
    apply_bf16_safe_rope(model, per_document=True)
    assert all(plan_of(m).positions.per_document for m in [*attention_modules(model), model.model])


def test_two_models_in_one():
    model, other = build("llama"), build("qwen3", seed=1)
    ids = batch("llama", padding=None)["input_ids"]
    stock = [m(ids).logits for m in (model, other)]
    model.other = other
    assert len(apply_bf16_safe_rope(model)) == 6
    for ours, theirs in zip((model(ids), other(ids)), stock, strict=True):
        assert (ours.logits - theirs).abs().max() < 1e-5


def test_a_rotary_embedding_alone_hands_nothing_on():
    with pytest.raises(SurgeryError, match="LlamaRotaryEmbedding has no encoder or decoder"):
        apply_bf16_safe_rope(build("llama").model.rotary_emb)


def test_a_rotation_that_is_gone_is_missed():
    model = build("llama")
    mix(model.model.rotary_emb, WithoutRotation)
    with pytest.raises(Conflict, match=r"rotary_emb: .* has already removed the rotation; undo that first"):
        apply_bf16_safe_rope(model)


@pytest.mark.parametrize("off", [0.0, 0.8e-5, 1.3e-5, -1.3e-5])
def test_how_far_frequencies_may_be_off(off):
    """float32 is off by 6e-8 at most, bfloat16 by 4e-3."""
    model = build("llama")
    model.model.rotary_emb.inv_freq *= 1 + off
    if abs(off) < 1e-5:
        assert check_rope(model) == 1
    else:
        with pytest.raises(SurgeryError, match=r"is off by 1\.3e-05"):
            check_rope(model)


@pytest.mark.parametrize("length", [16, 17])
def test_long_factors_begin_behind_the_original_length(length):
    rope = {
        "rope_type": "longrope",
        "rope_theta": 500.0,
        "short_factor": [1.0] * 4,
        "long_factor": [2.0] * 4,
        "original_max_position_embeddings": 16,
        "factor": 2.0,
    }
    model = build("llama", max_position_embeddings=32, rope_parameters=rope)
    ids = batch("llama", length=length, padding=None)["input_ids"]
    stock = model(ids).logits
    apply_bf16_safe_rope(model)
    assert (model(ids).logits - stock).abs().max() < 1e-5


def test_frequencies_are_those_of_the_formula():
    model = build("llama", rope_parameters={"rope_type": "default", "rope_theta": 81.0})
    model.config.made_of = {"a set"}  # which JSON does not know
    with torch.device("meta"):
        found, scaling = frequencies(model.model.rotary_emb)
    assert found == pytest.approx([81 ** (-i / 4) for i in range(4)])
    assert scaling == 1.0


def test_tables_are_scaled_and_in_float64():
    positions = torch.tensor([[0, 100_001]])
    cos, sin = tables(positions, (1.0, 0.1), 1.5)
    assert cos.dtype == sin.dtype == torch.float64
    assert cos.shape == (1, 2, 2)
    angles = (100_001, 10_000.1)
    assert cos[0, 1].tolist() == pytest.approx([1.5 * math.cos(x) for x in angles], abs=1e-9)
    assert sin[0, 1].tolist() == pytest.approx([1.5 * math.sin(x) for x in angles], abs=1e-9)
    assert sin[0, 0].tolist() == [0.0, 0.0]
    assert tables(positions.to("meta"), (1.0,), 1.0)[0].device.type == "meta"


def test_which_caches_keep_the_newest_key_last():
    refuse_static(None, "a window")
    refuse_static(object(), "a window")
    refuse_static(SimpleNamespace(is_compileable=False), "a window")
    with pytest.raises(SurgeryError, match=r"SimpleNamespace: a window counts .* use DynamicCache"):
        refuse_static(SimpleNamespace(is_compileable=True), "a window")
