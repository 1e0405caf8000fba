"""Families that could pass for text families, and why there is no model of them."""

import torch

_IMAGES = "takes images (or sounds) beside text; its text model is {}"
_SOUNDS = "takes or makes sounds"
_TEXT_MODELS = {
    "dots3_note": "dots3_note_text",
    "emu3": "emu3_text_model",
    "fuyu": "persimmon, which it holds",
    "gemma3": "gemma3_text",
    "gemma4": "gemma4_text",
    "gemma4_unified": "gemma4_unified_text",
    "git": "bert with a causal mask",
    "got_ocr2": "qwen2, which it holds",
    "llama4": "llama4_text",
    "mllama": "mllama_text_model",
    "modernvbert": "modernbert, which it holds",
    "phi4_multimodal": "phi3 with adapters",
    "qwen3_5": "qwen3_5_text",
    "qwen3_5_moe": "qwen3_5_moe_text",
    "qwen4_exp": "qwen4_exp_text",
    "sam3_lite_text": "sam3_lite_text_text_model",
    "t5gemma2": "t5gemma2_text",
    "ultravbert": "ultrabert, which it holds",
    "vision-text-dual-encoder": "bert, or another of these, which it holds",
}
_OF_SOUNDS = """
audioflamingo3 csm_depth_decoder_model glmasr granite_speech granite_speech_plus kyutai_speech_to_text
moss_transcribe_diarize musicflamingo musicgen musicgen_decoder musicgen_melody musicgen_melody_decoder
nemo_speechlm omniasr qwen2_audio qwen3_asr qwen3_omni_moe_talker_text seamless_m4t seamless_m4t_v2
vibevoice_asr voxtral voxtral_realtime
"""
_SHARED = "the draft model of another: it takes that model's hidden states and keys, no tokens"
_PAIR = "an encoder and a decoder in one: it takes two sequences, and has no class for either alone"

skipped: dict[str, str] = {
    **{name: _IMAGES.format(text) for name, text in _TEXT_MODELS.items()},
    **dict.fromkeys(_OF_SOUNDS.split(), _SOUNDS),
    "blt_local_decoder": "takes the hidden states of patches; blt holds it",
    "bros": "takes the boxes of words: it has no default for them",
    "clvp_encoder": "gives one vector for a sequence",
    "dpr": "gives one vector for a sequence; it holds a bert",
    "encoder-decoder": "any two of these families",
    "fsmt": _PAIR,
    "gemma3n": "needs the package timm; its text model is gemma3n_text",
    "gemma4_assistant": _SHARED,
    "gemma4_unified_assistant": _SHARED,
    "layoutlmv2": "needs the package detectron2",
    "mra": "its attention is a CUDA kernel, and zero on a CPU",
    "perceiver": "its logits are of the positions of the config, not of the tokens",
    "t5gemma2_decoder": "takes the states of an encoder in each of its attentions",
    "udop": "takes images and boxes beside text",
    "videoprism_text_model": "adds a token of its own: one output more than tokens",
    "voxtral_realtime_text": "takes an embedding of the time beside tokens",
}


def _scatters_by_int32() -> bool:
    """What torch 2.7 doesn't."""
    try:
        torch.zeros(1).scatter(0, torch.zeros(1, dtype=torch.int32), 1.0)
    except RuntimeError:
        return False
    return True


if not _scatters_by_int32():
    skipped |= dict.fromkeys(("glm5_next_text", "qwen4_exp_text"), "scatters by int32: needs newer torch")
