"""A recipe's model without its weights, and a micro-batch: tensors with shapes and dtypes, but no memory.

1. `meta_model` builds the stock model on torch's meta device, from its config alone.
2. `operated` applies the recipe's techniques to it.
3. `on_shapes` makes fake tensors of a CPU of it, since autocast leaves those of the meta device alone.
4. `batch_of` makes a micro-batch of full rows.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSequenceClassification

from cadenza.data import build_tokenizer
from cadenza.data.images.loader import channels, classes
from cadenza.data.text.new_words.listed import listed
from cadenza.data.text.vocabulary import TRAINERS
from cadenza.models import resnet
from cadenza.models.built import built, dtype_of, words
from cadenza.models.lora import lora_config
from cadenza.models.pretrained.config import stock_config
from cadenza.models.text_classifier import label_fields
from cadenza.recipe.memory.setting import Setting
from cadenza.recipe.schema import ClassificationRecipe, ImageRecipe

AUTO = {"masked_lm": AutoModelForMaskedLM, "causal_lm": AutoModelForCausalLM}
SIDES = {"digits": 8, "fashion_mnist": 28}


def meta_model(recipe: Any) -> nn.Module:
    """The stock model of `recipe` on the meta device.

    Raises:
        ModelError: an unknown type or field, or a pretrained model whose config can't be read.
    """
    with torch.device("meta"):
        model = _image_model(recipe) if isinstance(recipe, ImageRecipe) else _text_model(recipe)
    return model.train()


def _image_model(recipe: ImageRecipe) -> nn.Module:
    section, data = recipe.model, recipe.data
    shape: dict[str, Any] = {"num_classes": classes(data), "channels": channels(data)}
    return resnet(section.model_type, section.width, stem=section.stem, **shape)


def _text_model(recipe: Any) -> nn.Module:
    section, fields = recipe.model, dict(recipe.model.config)
    auto = AUTO.get(section.objective, AutoModelForSequenceClassification)
    if auto is AutoModelForSequenceClassification:
        fields = {**label_fields(_labels(recipe)), "pad_token_id": 0, **fields}
    if section.pretrained is None:
        size = {"vocab_size": _vocabulary(recipe), "pad_token_id": 0}
        model = built(auto, section.model_type, None, {**size, **fields}, section.attention, None)
        return _with_adapters(model, section)
    dtype = dtype_of(fields, getattr(section, "lora", None))
    config = stock_config(
        section.pretrained, {name: each for name, each in fields.items() if name != "dtype"}
    )
    stored = config.dtype if dtype == "auto" else getattr(torch, str(dtype).removeprefix("torch."))
    model = auto.from_config(config, attn_implementation=section.attention, dtype=stored)
    if recipe.tokenizer.new_tokens is not None:
        rows = model.get_input_embeddings().weight.shape[0] + len(listed(recipe.tokenizer.new_tokens))
        model.resize_token_embeddings(rows, mean_resizing=False)
    return _with_adapters(model, section)


def _with_adapters(model: Any, section: Any) -> nn.Module:
    if not getattr(section, "lora", None):
        return model
    from peft import get_peft_model

    return get_peft_model(model, lora_config(section.lora, section.objective == "causal_lm"))


def _labels(recipe: ClassificationRecipe) -> list[str]:
    """The classes; two if only the data names them: more take a row of the head each."""
    return [] if recipe.data.target == "number" else recipe.data.labels or ["0", "1"]


def _vocabulary(recipe: Any) -> int:
    """The words of the tokenizer; of one that is trained the most that it may have."""
    cfg = recipe.tokenizer
    if cfg.name in TRAINERS:
        return cfg.vocab_size
    added = 0 if cfg.new_tokens is None else len(listed(cfg.new_tokens))
    return words(build_tokenizer(cfg, lambda: (), masked=False)) + added


def on_shapes(model: nn.Module) -> nn.Module:
    """Give `model` fake tensors of a CPU in place; within a `FakeTensorMode`. Ties stay."""
    held: list[Any] = [x for module in model.modules() for x in (module._parameters, module._buffers)]
    stock = {id(tensor): tensor for group in held for tensor in group.values() if tensor is not None}
    fakes = {key: _fake(tensor) for key, tensor in stock.items()}
    for group in held:
        group.update({name: fakes[id(tensor)] for name, tensor in group.items() if tensor is not None})
    return model


def _fake(tensor: Tensor) -> Tensor:
    fake = torch.empty_like(tensor, device="cpu", requires_grad=False)
    if not isinstance(tensor, nn.Parameter):
        return fake
    return nn.Parameter(fake, requires_grad=tensor.requires_grad)


def batch_of(setting: Setting, masked: bool) -> Any:
    """A micro-batch of full rows on shapes; with an attention mask if `masked`."""
    recipe, rows = setting.recipe, setting.rows
    if isinstance(recipe, ImageRecipe):
        side = SIDES.get(recipe.data.source, recipe.data.image_size)
        images = torch.empty(rows, channels(recipe.data), side, side)
        return images, torch.empty(rows, dtype=torch.long)
    tokens = torch.empty(rows, recipe.data.max_seq_len, dtype=torch.long)
    labels = tokens.clone()
    if isinstance(recipe, ClassificationRecipe):
        number = recipe.data.target == "number"
        labels = torch.empty(rows, dtype=torch.float32 if number else torch.long)
    mask = {"attention_mask": tokens.clone()} if masked else {}
    return {"input_ids": tokens, "labels": labels, **mask}


def vocabulary_of(model: Any) -> int | None:
    """The columns of the logits of a language model; None of another model."""
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    weight = getattr(head, "weight", None)
    return None if weight is None else weight.shape[0]
