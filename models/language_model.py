"""Hugging Face language models as Composer models: new ones by a config, or from a folder or the Hub."""

from typing import Any

import torch
from composer.metrics import LanguageCrossEntropy, MaskedAccuracy
from composer.models import HuggingFaceModel
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, PreTrainedModel

from cadenza.models.built import built, dtype_of, fitting_tokenizer, refuse_larger, words
from cadenza.models.lora import lora_config
from cadenza.models.pretrained import add_words

IGNORED = -100  # the label of a token that isn't predicted


class LanguageModel(HuggingFaceModel):
    """Composer's wrapper, whose loss of a micro-batch without labels is 0.

    It is the mean of nothing, NaN, and would make NaN of the whole batch. A Trainer with
    `accumulate_train_batch_on_tokens` weighs each micro-batch by its labels, this one by 0.
    """

    def loss(self, outputs: Any, batch: Any) -> Tensor:
        loss, labels = super().loss(outputs, batch), batch["labels"]
        read = labels[:, 1:] if self.shift_labels else labels  # a causal LM predicts no first token
        return torch.where((read != IGNORED).any(), loss, torch.zeros_like(loss))


def masked_lm(
    model_type: str = "bert",
    pretrained: str | None = None,
    config: dict[str, Any] | None = None,
    attention: str = "sdpa",
    tokenizer: Any = None,
    lora: dict[str, Any] | None = None,
    new_words: dict[int, list[int]] | None = None,
) -> HuggingFaceModel:
    """A Hugging Face masked LM as a Composer model with masked accuracy and cross-entropy.

    Args:
        model_type: a transformers model type with a masked-LM head (`bert`, `roberta`, ...), if `pretrained`
            is None.
        pretrained: a folder or a Hub name to load weights from.
        config: fields of the model's config; an unknown field is an error.
        attention: the stock implementation, `sdpa` or `eager`.
        tokenizer: a transformers tokenizer; sets the vocabulary size and the special ids of a new model.
        lora: fields of peft's LoraConfig: adapters are added, and only the adapters are trained.
        new_words: of words that `pretrained` doesn't have: id in the tokenizer -> ids of the pieces whose
            mean it begins as.

    Raises:
        ModelError: unknown model type or field, missing folder, unreachable Hub; the tokenizer has more words
            than the model's embedding.
    """
    return _build(AutoModelForMaskedLM, model_type, pretrained, config, attention, tokenizer, lora, new_words)


def causal_lm(
    model_type: str = "llama",
    pretrained: str | None = None,
    config: dict[str, Any] | None = None,
    attention: str = "sdpa",
    tokenizer: Any = None,
    lora: dict[str, Any] | None = None,
    new_words: dict[int, list[int]] | None = None,
) -> HuggingFaceModel:
    """A Hugging Face causal LM as a Composer model; arguments and errors as in `masked_lm`."""
    return _build(AutoModelForCausalLM, model_type, pretrained, config, attention, tokenizer, lora, new_words)


def composer_model(
    model: PreTrainedModel, tokenizer: Any = None, train_metrics: bool = False, adapters: Any = None
) -> HuggingFaceModel:
    """`model` as a Composer model with cross-entropy and accuracy, both means over the labelled tokens alone.

    Args:
        train_metrics: compute both in training too, from each batch's logits, which `sparse_prediction` then
            has to keep. The loss is logged in any case.
        adapters: peft's LoraConfig of adapters to add, or None.
    """

    def metrics() -> list:
        return [LanguageCrossEntropy(ignore_index=IGNORED), MaskedAccuracy(ignore_index=IGNORED)]

    return LanguageModel(
        model,
        tokenizer=tokenizer,
        use_logits=True,
        metrics=metrics() if train_metrics else None,
        eval_metrics=metrics(),
        allow_embedding_resizing=False,
        peft_config=adapters,
    )


def _build(
    auto: Any,
    model_type: str,
    pretrained: str | None,
    config: Any,
    attention: str,
    tokenizer: Any,
    lora: Any,
    new_words: Any,
) -> HuggingFaceModel:
    causal = auto is AutoModelForCausalLM
    ids = ("bos_token_id", "eos_token_id", "pad_token_id") if causal else ("pad_token_id",)
    fields = dict(config or {})
    if pretrained is not None:
        fields["dtype"] = dtype_of(fields, lora)
    model = built(auto, model_type, pretrained, fields, attention, tokenizer, ids)
    if pretrained is not None and new_words:
        add_words(model, new_words, words(tokenizer))
    refuse_larger(tokenizer, model)
    adapters = lora_config(lora, causal) if lora else None
    with fitting_tokenizer():
        return composer_model(model, tokenizer, adapters=adapters)
