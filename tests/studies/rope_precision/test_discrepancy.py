"""D in a stream equals the D of all probabilities kept, on several families, in any blocks."""

import pytest
import torch
from families import CONFIGS, SIZES, build
from transformers import AutoModelForCausalLM, Gemma2Config, GptOssConfig
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from cadenza.algorithms import apply_bf16_safe_rope, apply_sliding_window
from cadenza.studies.checks import StudyError
from cadenza.studies.rope_precision import row_blocks
from cadenza.studies.rope_precision.discrepancy import Sums, discrepancies

TOKENS, AGAINST, SHIFTS = 24, 3, (0, 16, 1000, 3)
IDS = torch.randint(3, 90, (TOKENS,), generator=torch.Generator().manual_seed(0))
FAMILIES = {name: CONFIGS[name] for name in ("llama", "qwen3", "mistral")} | {
    "gemma2": (Gemma2Config, {"num_key_value_heads": 2, "head_dim": 8, "sliding_window": 8}),
    "gpt_oss": (
        GptOssConfig,
        {"num_key_value_heads": 2, "head_dim": 8, "sliding_window": 8, "num_local_experts": 2}
        | {"num_experts_per_tok": 1, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}},
    ),
}


@pytest.fixture(autouse=True)
def double_softmax(monkeypatch):
    """Stock attention rounds probabilities to float32, more than float64 sums differ by."""
    usual = torch.nn.functional.softmax

    def softmax(x, dim=None, dtype=None, **options):
        return usual(x, dim=dim, dtype=None if x.dtype == torch.float64 else dtype, **options)

    monkeypatch.setattr(torch.nn.functional, "softmax", softmax)


@pytest.fixture(params=[2500, 2**24], ids=["blocks", "whole"])
def blocks(request, monkeypatch):
    monkeypatch.setattr(row_blocks, "BLOCK", request.param)


def model_of(family, dtype=torch.float64):
    if family in CONFIGS:
        return build(family, attention="eager", initializer_range=0.3).to(dtype)
    config_class, own = FAMILIES[family]
    config = config_class(**{**SIZES, **own, "initializer_range": 0.3})
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval().to(dtype)


@torch.no_grad()
def kept(model, shift):
    """Each layer's probabilities (1, heads, tokens, tokens) with positions from `shift`."""
    positions = torch.arange(TOKENS)[None] + shift
    out = model(IDS[None], position_ids=positions, output_attentions=True, use_cache=False)
    return [layer.double() for layer in out.attentions]


def by_definition(model, shift):
    """Both readings of equation 4, by key."""
    pairs = zip(kept(model, shift), kept(model, AGAINST), strict=True)
    difference = torch.cat([a - b for a, b in pairs])  # (layers, heads, tokens, tokens)
    seen_by = torch.arange(TOKENS, 0, -1)
    return difference.abs().sum((0, 1, 2)) / seen_by, difference.sum(2).abs().sum((0, 1)) / seen_by


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "gpt_oss"])  # no float64 experts
def test_the_stream_equals_what_keeps_everything(family, blocks):
    model = model_of(family)
    found = discrepancies(model, IDS, AGAINST, SHIFTS)
    for shift, each in zip(SHIFTS, found, strict=True):
        inside, outside = by_definition(model, shift)
        assert torch.allclose(each.inside, inside, rtol=1e-6, atol=1e-13), shift
        assert torch.allclose(each.outside, outside, rtol=1e-6, atol=1e-13), shift
    assert found[2].inside.sum() > 1e-6 > 0 == found[3].inside.sum(), "1000 rounds angles, 3 is no shift"


@pytest.mark.parametrize(("family", "exact"), [("llama", True), ("mistral", False), ("gpt_oss", False)])
def test_in_bfloat16_every_probability_is_the_stock_one(family, exact, monkeypatch):
    monkeypatch.setattr(row_blocks, "BLOCK", 1)
    model = model_of(family, torch.bfloat16)
    if exact:
        apply_bf16_safe_rope(model, prove=False)
    for shift, each in zip(SHIFTS, discrepancies(model, IDS, AGAINST, SHIFTS), strict=True):
        inside, outside = by_definition(model, shift)
        assert torch.allclose(each.inside, inside, rtol=1e-12)
        assert torch.allclose(each.outside, outside, rtol=1e-12)
        assert bool(inside.sum() > 0.01) == (shift != AGAINST)


def test_exact_rotary_positions_leave_rounding_alone():
    stock, exact = model_of("llama"), model_of("llama")
    apply_bf16_safe_rope(exact)
    of_stock, of_exact = (float(discrepancies(m, IDS, 0, [1000])[0].inside.sum()) for m in (stock, exact))
    assert of_exact < 1e-12 < 1e-6 < of_stock


def test_a_window_that_a_technique_claims_counts():
    model = model_of("llama")
    apply_sliding_window(model, 4)
    (found,) = discrepancies(model, IDS, AGAINST, [1000])
    inside, _ = by_definition(model, 1000)
    assert torch.allclose(found.inside, inside, rtol=1e-6, atol=1e-13)


@torch.no_grad()
def test_the_scores_of_the_first_key_by_length():
    """Equation 5: score = query times first key / sqrt(width), and the mean over the first T queries."""
    model, seen, calls = model_of("llama"), [], []
    for layer in model.model.layers:
        layer.self_attn.register_forward_pre_hook(
            lambda module, args, kwargs: calls.append((module, kwargs)), with_kwargs=True
        )
    for shift in (1000, AGAINST):
        calls.clear()
        model(IDS[None], position_ids=torch.arange(TOKENS)[None] + shift, use_cache=False)
        total = torch.zeros(TOKENS, dtype=torch.float64)
        for module, kwargs in calls:
            hidden = kwargs["hidden_states"]
            query, key = (
                projected(hidden).view(1, TOKENS, -1, 8).transpose(1, 2)
                for projected in (module.q_proj, module.k_proj)
            )
            query, key = apply_rotary_pos_emb(query, key, *kwargs["position_embeddings"])
            first = key[:, :, :1].repeat_interleave(2, dim=1)
            total += (query * first).sum((0, 1, 3)) / 8**0.5
        seen.append(total)
    expected = (seen[0] - seen[1]).cumsum(0) / torch.arange(1, TOKENS + 1)
    (found,) = discrepancies(model, IDS, AGAINST, [1000])
    assert torch.allclose(found.scores, expected, rtol=1e-6, atol=1e-12)
    assert found.scores.abs().max() > 1e-7


def test_the_model_is_left_as_it_was():
    model = model_of("llama")
    before = kept(model, 5)
    discrepancies(model, IDS, AGAINST, [5])
    assert model.config._attn_implementation == "eager"
    assert all(torch.equal(a, b) for a, b in zip(before, kept(model, 5), strict=True))

    def fails(*_, **__):
        raise RuntimeError("stopped")

    model.model.layers[1].register_forward_pre_hook(fails)
    with pytest.raises(RuntimeError, match="stopped"):
        discrepancies(model, IDS, AGAINST, [5])
    assert model.config._attn_implementation == "eager"


def test_both_readings_of_two_small_matrices():
    sums = Sums(2, 2, torch.device("cpu"))
    first = torch.tensor([[1.0, 0.0], [0.5, 0.5]])
    probabilities = torch.stack([first, torch.tensor([[1.0, 0], [0.25, 0.75]]), first * 0 + 0.5])[:, None]
    query = torch.ones(3, 1, 2, 4)
    sums.block(0, query, query, 1.0, probabilities)
    sums.end_of_layer()
    one, other = sums.found()
    assert (one.inside.tolist(), one.outside.tolist()) == ([0.25 / 2, 0.25], [0.25 / 2, 0.25])
    assert (other.inside.tolist(), other.outside.tolist()) == ([0.5 / 2, 0.5], [0.5 / 2, 0.5])


def test_an_attention_that_makes_its_own_mask_is_refused():
    model = model_of("llama")
    options = {"dropout": 0.0, "scaling": 1.0}
    blocks = row_blocks.RowBlocks(Sums(1, 4, torch.device("cpu")))
    query = torch.zeros(2, 4, 4, 8)
    module = model.model.layers[0].self_attn
    with pytest.raises(StudyError, match="--model: LlamaAttention makes its mask itself"):
        blocks(module, query, query, query, None, **options)
    mask = row_blocks.block_mask()
    with pytest.raises(StudyError, match="passes position_bias to attention, which D doesn't know"):
        blocks(module, query, query, query, mask, position_bias=query, **options)
