"""A stock Hugging Face model for a tokenizer: new by a config, or from a folder or the Hub."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from transformers import AutoConfig, PreTrainedModel

from cadenza.models.errors import ModelError, in_short, nearest_field
from cadenza.models.pretrained import pretrained_model


def built(
    auto: Any,
    model_type: str,
    pretrained: str | None,
    fields: dict[str, Any],
    attention: str,
    tokenizer: Any,
    ids: tuple[str, ...] = ("pad_token_id",),
) -> PreTrainedModel:
    """The model of transformers' class `auto`.

    Args:
        fields: of the config; they replace what `tokenizer` and the pretrained model say.
        ids: the special ids that a new model takes from the tokenizer.

    Raises:
        ModelError: unknown model type or field, missing folder, unreachable Hub.
    """
    if pretrained is not None:
        return pretrained_model(auto, pretrained, {"dtype": dtype_of(fields), **fields}, attention)
    own = {} if tokenizer is None else {name: getattr(tokenizer, name, None) for name in ids}
    size = {} if tokenizer is None else {"vocab_size": words(tokenizer)}
    return _from_config(auto, model_type, {**size, **own, **fields}, attention)


def dtype_of(fields: dict[str, Any], adapters: Any = None) -> str:
    """The dtype of pretrained weights, for `fields` of the config; "auto": the one that the config names.

    Weights that are trained are float32 unless the fields say otherwise, since steps are smaller than
    bfloat16 resolves. Those beside adapters aren't trained.
    """
    return fields.get("dtype") or ("auto" if adapters else "float32")


def words(tokenizer: Any) -> int:
    """The rows that an embedding needs: ids may have gaps, so that the largest is beyond their number."""
    return max(tokenizer.get_vocab().values()) + 1


def refuse_larger(tokenizer: Any, model: PreTrainedModel) -> None:
    """Raise `ModelError` if the tokenizer has more words than the model's embedding has rows."""
    embedding: Any = model.get_input_embeddings()
    rows = embedding.weight.shape[0]
    if tokenizer is not None and words(tokenizer) > rows:
        largest = f"its largest id is {words(tokenizer) - 1}, the model's embedding has {rows} rows"
        raise ModelError(f"model: the tokenizer doesn't fit ({largest})")


@contextmanager
def fitting_tokenizer() -> Iterator[None]:
    """Turn Composer's error about a tokenizer that doesn't fit into a `ModelError`."""
    try:
        yield
    except ValueError as error:
        raise ModelError(f"model: the tokenizer doesn't fit ({in_short(error)})") from error


def _from_config(auto: Any, model_type: str, fields: dict[str, Any], attention: str) -> PreTrainedModel:
    try:
        known = AutoConfig.for_model(model_type)
    except ValueError as error:
        raise ModelError(f"model.model_type {model_type!r} is not a transformers model type") from error
    for name in fields:
        if not hasattr(known, name):
            if name == "vocab_size":  # the tokenizer's
                reason = "has no vocabulary of its own: it isn't a model of text alone"
                raise ModelError(f"model.model_type {model_type!r} {reason}")
            hint = nearest_field(name, known.to_dict())
            raise ModelError(f"model.config.{name} is not a field of {type(known).__name__}{hint}")
    try:
        config = AutoConfig.for_model(model_type, **fields)
        return auto.from_config(config, attn_implementation=attention)
    except Exception as error:
        raise ModelError(f"model: {model_type} can't be built: {in_short(error)}") from error
