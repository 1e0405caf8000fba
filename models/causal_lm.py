"""Causal language models as Composer models: any Hugging Face decoder, from a config or a folder."""

from typing import Any

from composer.models import HuggingFaceModel
from transformers import AutoModelForCausalLM

from cadenza.models.stock import language_model

IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


def causal_lm(
    model_type: str = "llama",
    pretrained: str | None = None,
    config: dict[str, Any] | None = None,
    attention: str = "sdpa",
    tokenizer: Any = None,
    lora: dict[str, Any] | None = None,
) -> HuggingFaceModel:
    """A Hugging Face causal LM as a Composer model; arguments and errors as in `masked_lm`."""
    return language_model(
        AutoModelForCausalLM, IDS, model_type, pretrained, config, attention, tokenizer, lora
    )
