"""bf16_safe_rope by what a rotary embedding does: on each family equal to stock code, or refused."""

import copy

import pytest
import torch
from families import SIZES, batch
from transformers import DynamicCache
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM

from cadenza.algorithms import apply_bf16_safe_rope, check_rope
from cadenza.attention.modules import base_models
from cadenza.attention.proof.subject import is_tested
from cadenza.attention.rotary.tables import is_rotary
from cadenza.surgery import NoEffect, SurgeryError

HEADS = {"num_key_value_heads": 2, "head_dim": 8}
WIDE = {"num_attention_heads": 1, "num_key_value_heads": 1}  # a quarter of 32 columns rotates
EXPERTS = {"num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
LATENT = {
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 16,
}
YARN = {"rope_type": "yarn", "rope_theta": 500.0, "factor": 4.0, "original_max_position_embeddings": 16}
GLOBAL = {"rope_type": "linear", "rope_theta": 500.0, "factor": 8.0}
LAYERS = {
    "layer_types": ["sliding_attention", "full_attention"],
    "rope_parameters": {
        "sliding_attention": {"rope_type": "default", "rope_theta": 50.0},
        "full_attention": GLOBAL,
    },
}
WHOLE = {  # all columns of a head rotate, as halves
    "llama": HEADS,
    "mistral": HEADS,
    "mixtral": HEADS | EXPERTS,
    "qwen2": HEADS,
    "qwen3": HEADS,
    "gemma": HEADS,
    "gemma2": HEADS,
    "granite": {},
    "olmo2": {},
    "smollm3": HEADS,
    "starcoder2": HEADS,
    "exaone4": HEADS,
    "eurobert": {},
    "nomic_bert": {},
}
PARTIAL = {
    "gpt_neox": WIDE,
    "phi": {},
    "phi3": HEADS,
    "stablelm": WIDE,
    "persimmon": {},
    "nemotron": HEADS,
    "glm": HEADS,
    "glm4": HEADS,
}
PAIRS = {"cohere": HEADS, "cohere2": HEADS, "ernie4_5": HEADS, "helium": HEADS}
OTHERS = {
    "gpt_oss": HEADS | EXPERTS | {"rope_parameters": YARN},
    "gemma3_text": HEADS | LAYERS,
    "modernbert": LAYERS,
    "deepseek_v3": LATENT | {"head_dim": 8, "num_key_value_heads": 4, "n_routed_experts": 8, "n_group": 2},
}
EQUAL = WHOLE | PARTIAL | PAIRS | OTHERS
REFUSED = {
    "qwen3_vl_text": (HEADS, r"one integer position a token, not torch.int64 \(3, 2, 8\)"),
    "llama4_text": (HEADS, r"Llama4TextRotaryEmbedding doesn't return cos and sin .* returns Tensor"),
    "deepseek_v2": (LATENT, r"DeepseekV2RotaryEmbedding doesn't return cos and sin .* returns Tensor"),
    "falcon": ({}, "has no encoder or decoder whose attention is on"),
    "moshi": (HEADS, "MoshiModel uses rotary positions in its own way"),
    "pixtral": (
        {"image_size": 16, "patch_size": 4},
        "PixtralVisionModel takes no input_ids",
    ),
}
IDS = batch("llama", padding=None)["input_ids"]


def build(kind, options, device="cpu"):
    """A small random model, whose attention depends on positions clearly."""
    config = CONFIG_MAPPING[kind](**{**SIZES, **options})
    autos = AutoModelForCausalLM, AutoModelForMaskedLM, AutoModel
    auto = next(auto for auto in autos if type(config) in auto._model_mapping)
    torch.manual_seed(0)
    with torch.device(device):
        model = auto.from_config(config).eval()
    for parameter in model.parameters():
        parameter.data.mul_(5.0 if parameter.ndim > 1 else 1.0)
    return model


def rotaries(model):
    return [module for module in model.modules() if is_rotary(module)]


@torch.no_grad()
def logits(model, **options):
    return model(input_ids=IDS, **options).logits


@pytest.mark.parametrize("kind", EQUAL)
def test_logits_are_the_stock_ones_and_a_cast_of_the_frequencies_changes_none(kind):
    model = build(kind, EQUAL[kind])
    far = {"position_ids": 1000 * torch.arange(13)[None]}
    stock, stock_far = logits(model), logits(model, **far)
    assert check_rope(model) == len(rotaries(model))
    ours = copy.deepcopy(model)
    apply_bf16_safe_rope(ours)
    assert (logits(ours) - stock).abs().max() < 2e-5 * stock.abs().max()
    expected = logits(ours, **far)
    for rotary in rotaries(model) + rotaries(ours):
        rotary.to(torch.bfloat16)
    assert torch.equal(logits(ours, **far), expected)
    assert (logits(model, **far) - stock_far).abs().max() > 1e-3 * stock.abs().max(), (
        "a cast does no harm here"
    )
    with pytest.raises(SurgeryError, match="is off by"):
        check_rope(model)


@pytest.mark.parametrize("kind", EQUAL)
def test_in_bfloat16_the_model_runs_and_gives_its_gradients(kind):
    model = build(kind, EQUAL[kind])
    stock = logits(model)
    model = model.bfloat16()
    apply_bf16_safe_rope(model)
    found = model(input_ids=IDS).logits
    found.float().square().mean().backward()
    assert found.dtype == torch.bfloat16
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    alike = torch.nn.functional.cosine_similarity(found.float(), stock, dim=-1)
    assert alike.median() > 0.99, "but where rounding chooses another expert"


@pytest.mark.parametrize(
    "kind", [kind for kind in EQUAL if kind not in ("eurobert", "nomic_bert", "modernbert")]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_cache_holds_what_the_stock_one_holds(kind, dtype):
    caches = []
    for apply in (lambda model: None, apply_bf16_safe_rope):
        model = build(kind, EQUAL[kind]).to(dtype)
        apply(model)
        for rotary in rotaries(model):
            rotary.float()
        cache = DynamicCache(config=model.config)
        for part in (IDS[:, :8], IDS[:, 8:]):
            with torch.no_grad():
                model(input_ids=part, past_key_values=cache)
        caches.append(cache.layers[0].keys)
    stock, ours = caches
    assert ours.dtype == stock.dtype
    assert ours.shape == stock.shape
    assert (ours - stock).abs().max() < 4 * torch.finfo(dtype).eps * stock.abs().max()


@pytest.mark.parametrize("kind", REFUSED)
def test_what_rotates_in_another_way_is_refused_and_left_as_it_was(kind):
    options, why = REFUSED[kind]
    model = build(kind, options)
    before = {name: type(module) for name, module in model.named_modules()}
    with pytest.raises(SurgeryError, match=why):
        apply_bf16_safe_rope(model)
    assert {name: type(module) for name, module in model.named_modules()} == before


def test_without_frequencies_of_a_config_nothing_is_found():
    for kind in ("esm", "gpt2"):
        with pytest.raises(NoEffect):
            apply_bf16_safe_rope(build(kind, {}))


@pytest.mark.parametrize("kind", EQUAL)
def test_on_the_meta_device_there_is_no_proof(kind):
    model = build(kind, EQUAL[kind], device="meta")
    if not is_tested(base_models(model)[0]):
        with pytest.raises(SurgeryError, match="of no tested family, and nothing can be proved on meta"):
            apply_bf16_safe_rope(model)
        assert len(apply_bf16_safe_rope(model, prove=False)) >= 3
    else:
        assert len(apply_bf16_safe_rope(model)) >= 3


def test_on_the_meta_device_too_a_model_is_refused():
    with pytest.raises(SurgeryError, match="MoshiModel uses rotary positions in its own way"):
        apply_bf16_safe_rope(build("moshi", HEADS, device="meta"))
