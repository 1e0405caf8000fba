"""Masked language models as Composer models: any Hugging Face encoder, from a config or a folder."""

from typing import Any

from composer.models import HuggingFaceModel
from transformers import AutoModelForMaskedLM

from cadenza.models.stock import language_model


def masked_lm(
    model_type: str = "bert",
    pretrained: str | None = None,
    config: dict[str, Any] | None = None,
    attention: str = "sdpa",
    tokenizer: Any = None,
    lora: dict[str, Any] | None = None,
) -> HuggingFaceModel:
    """A Hugging Face masked LM as a Composer model with masked accuracy and cross-entropy.

    Args:
        model_type: a transformers model type with a masked-LM head (`bert`, `roberta`, ...); used
            without `pretrained`.
        pretrained: a folder or a Hub name to load weights from.
        config: fields of the model's config; an unknown field is an error.
        attention: the stock implementation, `sdpa` or `eager`.
        tokenizer: a transformers tokenizer; sets the vocabulary size and the special ids of a new model.
        lora: fields of peft's LoraConfig for adapters on top, which then train alone.

    Raises:
        ModelError: unknown model type or field, missing folder, unreachable Hub.
    """
    ids = ("pad_token_id",)
    return language_model(
        AutoModelForMaskedLM, ids, model_type, pretrained, config, attention, tokenizer, lora
    )
