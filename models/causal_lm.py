"""Causal language models as Composer models: any Hugging Face decoder, from a config or a folder."""

from typing import Any

from composer.models import HuggingFaceModel
from transformers import AutoModelForCausalLM

from cadenza.models.stock import as_composer_model, stock_model


def causal_lm(
    model_type: str = "llama",
    pretrained: str | None = None,
    config: dict[str, Any] | None = None,
    attention: str = "sdpa",
    tokenizer: Any = None,
) -> HuggingFaceModel:
    """A Hugging Face causal LM as a Composer model; arguments and errors as in `masked_lm`."""
    fields = _vocabulary(tokenizer) if pretrained is None else {}
    model = stock_model(AutoModelForCausalLM, model_type, pretrained, {**fields, **(config or {})}, attention)
    return as_composer_model(model, tokenizer)


def _vocabulary(tokenizer: Any) -> dict[str, Any]:
    if tokenizer is None:
        return {}
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    return {"vocab_size": len(tokenizer), **{name: getattr(tokenizer, name, None) for name in names}}
