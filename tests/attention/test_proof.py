"""Models of no tested family prove a technique on themselves, or are left as they were with the reason."""

import warnings

import pytest
import torch
import transformers
from text_families import build
from torch import nn

from cadenza.algorithms import (
    ALiBi,
    AnchorAttention,
    FlashAttention,
    SequencePacking,
    SlidingWindow,
    Unpadding,
    apply_alibi,
    apply_anchor_attention,
    apply_flash_attention,
    apply_sequence_packing,
    apply_sliding_window,
    apply_unpadding,
)
from cadenza.surgery import NoEffect, SurgeryError

PADDING_FREE = (Unpadding(), FlashAttention(), SequencePacking())
OUTSIDE = "tokens reach each other outside of attention"
REFUSED = [
    *((name, OUTSIDE, PADDING_FREE) for name in ("qwen3_next", "lfm2", "jamba", "bamba", "falcon_h1")),
    *((name, OUTSIDE, PADDING_FREE) for name in ("granitemoehybrid", "mobilebert", "nemotron_h", "minimax")),
    ("zamba", OUTSIDE, PADDING_FREE),
    ("t5", "T5Attention passes position_bias to attention", PADDING_FREE),
    ("umt5", "UMT5Attention passes position_bias to attention", PADDING_FREE),
    ("phimoe", "isn't that of attention with causal=True, window=None", PADDING_FREE),
    ("llama4_text", "isn't that of attention with causal=True, window=None", PADDING_FREE),
    ("bart", "aren't those of the stock code", [Unpadding()]),
    ("bart", "aren't what each of them is alone", [SequencePacking()]),
    ("lfm2", "documents reach each other", [AnchorAttention()]),
    *((name, "no encoder or decoder whose attention", [ALiBi()]) for name in ("megatron-bert", "doge")),
    *((name, "no encoder or decoder whose attention", [ALiBi()]) for name in ("mpnet", "big_bird")),
    *((name, "no encoder or decoder whose attention", [ALiBi()]) for name in ("rembert", "layoutlm")),
    *((name, "no encoder or decoder whose attention", [ALiBi()]) for name in ("squeezebert", "convbert")),
    *((name, "no encoder or decoder whose attention", [ALiBi()]) for name in ("deberta-v2", "falcon")),
    ("phi3", "has rope type 'longrope', whose frequencies follow", [Unpadding(), SequencePacking()]),
    ("phi3", "has rope type 'longrope'", [AnchorAttention("intra_document", reset_positions=True)]),
    ("qwen3_next", OUTSIDE, [ALiBi(), SlidingWindow(3)]),
]


@pytest.mark.parametrize(("name", "why", "surgeries"), REFUSED)
def test_what_is_wrong_on_a_model_is_refused(name, why, surgeries):
    for surgery in surgeries:
        model = build(name)
        types = {path: type(module) for path, module in model.named_modules()}
        fields, keys = model.config.to_dict(), list(model.state_dict())
        with pytest.raises(SurgeryError, match=why):
            surgery.operate(model)
        assert types == {path: type(module) for path, module in model.named_modules()}
        assert (fields, keys) == (model.config.to_dict(), list(model.state_dict()))
        assert not any("attention_plan" in vars(module) for module in model.modules())


def test_the_reason_names_the_way_around():
    model = build("lfm2")
    with pytest.raises(SurgeryError, match=r"Lfm2Model: .*; prove=False applies it all the same"):
        apply_unpadding(model)
    assert len(apply_unpadding(model, prove=False)) > 0
    rest = (apply_flash_attention, apply_sequence_packing, apply_alibi)
    for apply in (*rest, lambda m, prove: apply_sliding_window(m, 3, prove=prove)):
        assert len(apply(build("lfm2"), prove=False)) > 0
    assert len(apply_anchor_attention(build("lfm2"), prove=False)) > 0


def window_of_4096():
    return build("phimoe", sliding_window=4096)


def chunks_of_8192():
    return build("llama4_text", attention_chunk_size=8192)


@pytest.mark.parametrize("make", [window_of_4096, chunks_of_8192])
def test_masks_are_read_far_beyond_the_tokens_of_the_proof(make):
    """On a few tokens the outputs are equal."""
    with pytest.raises(SurgeryError, match="isn't that of attention with causal="):
        apply_flash_attention(make())


def test_a_model_of_tiny_weights_is_read_as_well():
    """The outputs of a new model barely change with what is dropped."""
    model = build("t5")
    for parameter in model.parameters():
        parameter.data *= 1e-3
    with pytest.raises(SurgeryError, match="position_bias"):
        apply_unpadding(model)
    model = build("lfm2")
    for name, parameter in model.named_parameters():
        if "conv" in name:
            parameter.data *= 0.1
    with pytest.raises(SurgeryError, match=OUTSIDE):
        apply_unpadding(model)


@pytest.mark.parametrize("name", ["gemma2", "gpt_oss"])
def test_limits_of_scores_and_sinks_are_honoured_by_the_model_s_own_kernel(name):
    model, stock = build(name, attention="eager"), build(name, attention="eager")
    apply_unpadding(model)
    ids = torch.randint(5, 90, (2, 20), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, 13:] = 0
    ours, theirs = (m(ids, attention_mask=mask, use_cache=False).logits for m in (model, stock))
    assert (ours - theirs)[mask.bool()].abs().max() < 1e-4
    with pytest.raises(SurgeryError, match=r"kernel 'flex' has no (softcap|sinks): use sdpa"):
        FlashAttention("flex").operate(build(name, attention="eager"))


def vit():
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 48}
    return transformers.ViTModel(transformers.ViTConfig(image_size=16, patch_size=4, **sizes))


def gemma3():
    text = {"vocab_size": 90, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    text |= {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
    vision = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.Gemma3Config(
        text_config=text, vision_config={**vision, "image_size": 16, "patch_size": 4}, mm_tokens_per_image=4
    )
    return transformers.Gemma3ForConditionalGeneration(config)


@pytest.mark.parametrize(
    "surgery", [*PADDING_FREE, ALiBi(), SlidingWindow(3)], ids=lambda s: type(s).__name__
)
def test_images_are_refused(surgery):
    with pytest.raises(
        SurgeryError, match="ViTModel takes no input_ids; attention is changed in text models"
    ):
        surgery.operate(vit())
    model = gemma3()
    with pytest.raises(SurgeryError, match=r"Gemma3Model consists of .*; operate on one of them"):
        surgery.operate(model)
    assert len(surgery.operate(model.model.language_model)) > 0


def test_encoder_decoders_are_refused():
    config = transformers.BartConfig(vocab_size=90, d_model=32, encoder_layers=1, decoder_layers=1)
    for surgery in (*PADDING_FREE, ALiBi(), SlidingWindow(3)):
        with pytest.raises(NoEffect, match="BartModel has no encoder or decoder whose attention"):
            surgery.operate(transformers.BartModel(config))


def test_on_meta_nothing_can_be_proved():
    with torch.device("meta"):
        model = transformers.Olmo2Model(transformers.Olmo2Config(num_hidden_layers=1))
        known = transformers.LlamaModel(transformers.LlamaConfig(num_hidden_layers=1))
    with pytest.raises(SurgeryError, match="Olmo2Model is of no tested family, and nothing can be proved on"):
        apply_unpadding(model)
    assert len(apply_unpadding(model, prove=False)) > 0
    assert len(apply_unpadding(known)) > 0


class Counting(nn.Module):
    """Counts its calls in a buffer, and draws."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, *args, **kwargs):
        self.calls += 1
        torch.rand(1)
        return self.inner(*args, **kwargs)


def test_a_proof_leaves_the_model_and_the_random_state_alone():
    model = build("olmo2").train()
    model.model.norm = Counting(model.model.norm)
    model.model.layers[0].eval()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for apply in (apply_unpadding, apply_flash_attention, apply_sequence_packing):
            apply(model)
    assert torch.equal(torch.rand(3), expected)
    assert model.model.norm.calls == 0
    assert model.training
    assert model.model.layers[1].training
    assert not model.model.layers[0].training
    assert all(bool((p.grad == 1).all()) for p in model.parameters())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_proofs_hold_in_every_dtype(dtype):
    for name in ("olmo2", "gte", *(["mixtral"] if dtype != torch.float64 else [])):  # it has no float64
        for surgery in (*PADDING_FREE, ALiBi(), SlidingWindow(3)):
            assert len(surgery.operate(build(name).to(dtype))) > 0
    for surgery in PADDING_FREE:
        with pytest.raises(SurgeryError, match=OUTSIDE):
            surgery.operate(build("lfm2").to(dtype))


def test_attention_that_is_left_out_by_mistake_is_found_out():
    """A technique changes no cross-attention; this one attends to its own tokens."""
    for surgery in (ALiBi(), SlidingWindow(3), Unpadding()):
        model = build("olmo2")
        model.model.layers[1].self_attn.is_cross_attention = True
        with pytest.raises(
            SurgeryError, match="Olmo2Attention is taken for cross-attention, but gets no other"
        ):
            surgery.operate(model)


class Shifted(nn.Module):
    """Adds the token before, as a convolution of width two would."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, hidden):
        return self.inner(hidden) + hidden.roll(1, dims=1)


def test_a_tested_family_with_another_part_has_to_prove_itself():
    model = build("llama")
    model.model.layers[0].mlp = Shifted(model.model.layers[0].mlp)
    for surgery in PADDING_FREE:
        with pytest.raises(SurgeryError, match=OUTSIDE):
            surgery.operate(model)


def test_a_window_of_zero_is_none():
    """As in the config of Qwen2-MoE."""
    model = build("qwen2_moe", sliding_window=None, use_sliding_window=False)
    assert not model.config.sliding_window
    assert len(apply_anchor_attention(model)) > 0
