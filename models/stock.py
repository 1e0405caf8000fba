"""Stock Hugging Face models, from a config, a folder or the Hub, and as Composer models."""

from pathlib import Path
from typing import Any

from composer.metrics import LanguageCrossEntropy, MaskedAccuracy
from composer.models import HuggingFaceModel
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from cadenza.data import hub
from cadenza.models.errors import ModelError, nearest_field
from cadenza.models.lora import lora_config
from cadenza.surgery.checkpoint import safe_weights, unsafe_pickles


def language_model(
    auto: Any,
    special_ids: tuple[str, ...],
    model_type: str,
    pretrained: str | None,
    config: dict[str, Any] | None,
    attention: str,
    tokenizer: Any,
    lora: dict[str, Any] | None,
) -> HuggingFaceModel:
    """A model of the `AutoModel` class `auto`, as a Composer model: pretrained, or new from its type with the
    tokenizer's vocabulary and those of its `special_ids`.

    Raises:
        ModelError: unknown model type or field, missing folder, unreachable Hub; the tokenizer has more words
            than the model's table.
    """
    fields, adapters = config or {}, lora_config(lora, auto is AutoModelForCausalLM) if lora else None
    if pretrained is None:
        fields = {**_vocabulary(tokenizer, special_ids), **fields}
        model = _from_config(auto, model_type, fields, attention)
    else:
        model = _from_pretrained(auto, pretrained, fields, attention)
    try:
        return composer_model(model, tokenizer, adapters=adapters)
    except ValueError as error:
        raise ModelError(f"model: the tokenizer doesn't fit ({in_short(error)})") from error


def _vocabulary(tokenizer: Any, special_ids: tuple[str, ...]) -> dict[str, Any]:
    if tokenizer is None:
        return {}
    return {"vocab_size": len(tokenizer), **{name: getattr(tokenizer, name, None) for name in special_ids}}


def composer_model(
    model: PreTrainedModel, tokenizer: Any = None, train_metrics: bool = False, adapters: Any = None
) -> HuggingFaceModel:
    """`model` as a Composer model; both metrics are means over the labelled tokens alone.

    In training they would be computed from every batch's logits, which `sparse_prediction` then has to keep;
    the loss is logged without them. `adapters` is peft's config of a LoRA on top, or None.
    """

    def metrics() -> list:
        return [LanguageCrossEntropy(ignore_index=-100), MaskedAccuracy(ignore_index=-100)]

    return HuggingFaceModel(
        model,
        tokenizer=tokenizer,
        use_logits=True,
        metrics=metrics() if train_metrics else None,
        eval_metrics=metrics(),
        allow_embedding_resizing=False,
        peft_config=adapters,
    )


def _from_config(auto: Any, model_type: str, fields: dict[str, Any], attention: str) -> PreTrainedModel:
    try:
        known = AutoConfig.for_model(model_type)
    except ValueError as error:
        raise ModelError(f"model.model_type {model_type!r} is not a transformers model type") from error
    for name in fields:
        if not hasattr(known, name):
            hint = nearest_field(name, known.to_dict())
            raise ModelError(f"model.config.{name} is not a field of {type(known).__name__}{hint}")
    try:
        config = AutoConfig.for_model(model_type, **fields)
        return auto.from_config(config, attn_implementation=attention)
    except Exception as error:
        raise ModelError(f"model: {model_type} can't be built: {in_short(error)}") from error


def _from_pretrained(auto: Any, name: str, fields: dict[str, Any], attention: str) -> PreTrainedModel:
    folder = Path(name).expanduser()
    if name.startswith((".", "/", "~")) and not folder.is_dir():
        raise ModelError(f"model.pretrained: there is no folder {name}")
    local = folder.is_dir() or not hub.reachable()
    source = str(folder) if folder.is_dir() else name
    options = {"attn_implementation": attention, "local_files_only": local, **safe_weights(), **fields}
    try:
        return auto.from_pretrained(source, **options)
    except Exception as error:
        offline = local and not folder.is_dir()
        reason = "it isn't cached, and the Hub doesn't answer" if offline else in_short(error)
        raise ModelError(f"model.pretrained: {name} can't be loaded ({reason})") from error


def in_short(error: Exception) -> str:
    """An error in a line."""
    text = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    only = unsafe_pickles() if "safetensors" in text else None
    return f"{text}; no other format is read here: {only}" if only else text
