"""bf16_safe_rope with a cache: its keys are rotated, so whatever lies in it is right as in stock code."""

import copy

import pytest
import torch
from families import batch, build
from transformers import DynamicCache, StaticCache

from cadenza.algorithms import apply_bf16_safe_rope

IDS = batch("llama", padding=None)["input_ids"]
FIRST, LAST = IDS[:, :8], IDS[:, 8:]


def sensitive(family="llama"):
    """A model whose attention depends on positions clearly."""
    model = build(family)
    for parameter in model.parameters():
        parameter.data.mul_(5.0 if parameter.ndim > 1 else 1.0)
    return model


@torch.no_grad()
def second_part(model, cache, before, after, other=None):
    """Logits of the last 5 tokens at positions `after`; `other` fills the cache with 8 at `before`."""
    (other or model)(FIRST, position_ids=before[None], past_key_values=cache)
    return model(LAST, position_ids=after[None], past_key_values=cache).logits


def assert_close(found, expected):
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.parametrize("family", ["llama", "qwen3", "mistral"])
@pytest.mark.parametrize("gap", [0, 1, 50, -3])
def test_positions_may_leave_a_gap_to_the_cache(family, gap):
    stock = sensitive(family)
    ours = copy.deepcopy(stock)
    apply_bf16_safe_rope(ours)
    at = torch.arange(8), torch.arange(8 + gap, 13 + gap)
    found, expected = (second_part(model, DynamicCache(config=model.config), *at) for model in (ours, stock))
    assert_close(found, expected)


def test_positions_may_start_anew_within_the_cached_prefix():
    stock = sensitive()
    ours = copy.deepcopy(stock)
    apply_bf16_safe_rope(ours)
    at = torch.arange(8) % 4, torch.arange(4, 9)
    assert_close(*(second_part(model, DynamicCache(config=model.config), *at) for model in (ours, stock)))


@pytest.mark.parametrize("filled_by_stock", [True, False])
def test_a_cache_may_be_filled_by_one_and_read_by_the_other(filled_by_stock):
    stock = sensitive()
    ours = copy.deepcopy(stock)
    apply_bf16_safe_rope(ours)
    fills, reads = (stock, ours) if filled_by_stock else (ours, stock)
    at = torch.arange(8), torch.arange(8, 13)
    found = second_part(reads, DynamicCache(config=stock.config), *at, other=fills)
    assert_close(found, second_part(stock, DynamicCache(config=stock.config), *at))


@pytest.mark.parametrize("technique", ["PrefixTuningConfig", "PromptTuningConfig"])
def test_virtual_tokens(technique):
    """Keys of prefix tuning have no position; stock code doesn't rotate them."""
    peft = pytest.importorskip("peft")
    config = getattr(peft, technique)(task_type="CAUSAL_LM", num_virtual_tokens=5)
    model = peft.get_peft_model(sensitive(), config).eval()
    with torch.no_grad():
        stock = model(input_ids=IDS).logits
        apply_bf16_safe_rope(model)
        assert_close(model(input_ids=IDS).logits, stock)


@pytest.mark.parametrize("family", ["llama", "qwen3", "mistral"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_static_cache(family, dtype):
    model = sensitive(family).to(dtype)
    apply_bf16_safe_rope(model)
    at = torch.arange(8), torch.arange(8, 13)
    static, dynamic = StaticCache(config=model.config, max_cache_len=24), DynamicCache(config=model.config)
    found, expected = (second_part(model, cache, *at) for cache in (static, dynamic))
    # In bfloat16 the kernel sums the scores of 13 and of 24 keys in another order.
    assert (found - expected).abs().max() < 8 * torch.finfo(dtype).eps * expected.abs().max()
    assert static.layers[0].keys.dtype == dtype
    assert torch.equal(static.layers[0].keys[:, :, :13], dynamic.layers[0].keys)


@pytest.mark.parametrize(
    "options", [{"num_beams": 3}, {"cache_implementation": "static"}, {"use_cache": False}]
)
def test_generation(options):
    model = sensitive()
    options = {"max_new_tokens": 7, "do_sample": False, "pad_token_id": 0, "eos_token_id": None, **options}
    stock = model.generate(IDS, **options, disable_compile=True)
    apply_bf16_safe_rope(model)
    assert torch.equal(model.generate(IDS, **options, disable_compile=True), stock)


def test_prompts_padded_on_the_left_in_a_static_cache():
    model = sensitive()
    inputs = batch("llama", padding="left")
    inputs.pop("labels")
    options = {"max_new_tokens": 7, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    options |= {"cache_implementation": "static", "disable_compile": True}
    stock = model.generate(**inputs, **options)
    apply_bf16_safe_rope(model)
    assert torch.equal(model.generate(**inputs, **options), stock)
