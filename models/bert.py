"""Masked language models as Composer models: any Hugging Face encoder, from a config or a folder."""

import difflib
from pathlib import Path
from typing import Any

from composer.metrics import LanguageCrossEntropy, MaskedAccuracy
from composer.models import HuggingFaceModel
from transformers import AutoConfig, AutoModelForMaskedLM, PreTrainedModel

from cadenza.data import hub
from cadenza.models.errors import ModelError


def masked_lm(
    model_type: str = "bert",
    pretrained: str | None = None,
    config: dict[str, Any] | None = None,
    attention: str = "sdpa",
    tokenizer: Any = None,
) -> HuggingFaceModel:
    """A Hugging Face masked LM as a Composer model with masked accuracy and cross-entropy.

    Args:
        model_type: a transformers model type with a masked-LM head (`bert`, `roberta`, ...); used
            without `pretrained`.
        pretrained: a folder or a Hub name to load weights from.
        config: fields of the model's config; an unknown field is an error.
        attention: the stock implementation, `sdpa` or `eager`.
        tokenizer: a transformers tokenizer; sets the vocabulary size and the special ids of a new model.

    Raises:
        ModelError: unknown model type or field, missing folder, unreachable Hub.
    """
    fields = {**_vocabulary(tokenizer), **(config or {})}
    if pretrained is None:
        model = _from_config(model_type, fields, attention)
    else:
        model = _from_pretrained(pretrained, config or {}, attention)
    try:
        return composer_model(model, tokenizer)
    except ValueError as error:  # the tokenizer has more words than the table
        raise ModelError(f"model: the tokenizer doesn't fit ({_in_short(error)})") from error


def composer_model(
    model: PreTrainedModel, tokenizer: Any = None, train_metrics: bool = False
) -> HuggingFaceModel:
    """`model` as a Composer model; both metrics are means over the labelled tokens alone.

    In training they would be computed from every batch's logits, which `sparse_prediction` then has to keep;
    the loss is logged without them.
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
    )


def _vocabulary(tokenizer: Any) -> dict[str, int]:
    if tokenizer is None:
        return {}
    return {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}


def _from_config(model_type: str, fields: dict[str, Any], attention: str) -> PreTrainedModel:
    try:
        known = AutoConfig.for_model(model_type)
    except ValueError as error:
        raise ModelError(f"model.model_type {model_type!r} is not a transformers model type") from error
    for name in fields:
        if not hasattr(known, name):
            near = difflib.get_close_matches(name, list(known.to_dict()), n=1)
            hint = f"; nearest: {near[0]}" if near else ""
            raise ModelError(f"model.config.{name} is not a field of {type(known).__name__}{hint}")
    try:
        config = AutoConfig.for_model(model_type, **fields)
        return AutoModelForMaskedLM.from_config(config, attn_implementation=attention)
    except Exception as error:
        raise ModelError(f"model: {model_type} can't be built: {_in_short(error)}") from error


def _from_pretrained(name: str, fields: dict[str, Any], attention: str) -> PreTrainedModel:
    folder = Path(name).expanduser()
    if name.startswith((".", "/", "~")) and not folder.is_dir():
        raise ModelError(f"model.pretrained: there is no folder {name}")
    local = folder.is_dir() or not hub.reachable()
    source = str(folder) if folder.is_dir() else name
    options = {"attn_implementation": attention, "local_files_only": local, **fields}
    try:
        return AutoModelForMaskedLM.from_pretrained(source, **options)
    except Exception as error:
        offline = local and not folder.is_dir()
        reason = "it isn't cached, and the Hub doesn't answer" if offline else _in_short(error)
        raise ModelError(f"model.pretrained: {name} can't be loaded ({reason})") from error


def _in_short(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
