"""The bytes of a training step, counted on shapes: forward and backward of the micro-batches of a batch."""

from collections import Counter
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from cadenza.quantization.stored.formats import make_code_values
from cadenza.recipe.cpu.autocast import bfloat16
from cadenza.recipe.memory import attention
from cadenza.recipe.memory.cuda_rules import of_cuda
from cadenza.recipe.memory.live import LiveBytes
from cadenza.recipe.memory.selected import Selected
from cadenza.recipe.memory.setting import Setting
from cadenza.recipe.memory.shapes import batch_of, on_shapes, vocabulary_of
from cadenza.recipe.memory.techniques import by_document, names_of


@dataclass
class Step:
    """The bytes by part at the peak of forward and backward, and what the outputs hold after it."""

    peak: Counter[str]
    after: Counter[str]
    unknown: str | None = None  # why neither is known


def step(model: Any, setting: Setting, counted: tuple[str, ...] | None = None) -> Step:
    """A step of the operated `model`, which is on the meta device; `unknown` if shapes alone don't do.

    Args:
        counted: the parts whose sum has the peak; None: all.
    """
    recipe = setting.recipe
    if "post_training_quantization" in names_of(recipe):
        make_code_values()
    with (
        FakeTensorMode(allow_non_fake_inputs=True),
        unmasked(model, recipe),
        Selected(labelled_share(recipe)),
        of_cuda() if setting.cuda else nullcontext(),  # in backward too, for what is computed again
    ):
        live = LiveBytes(on_shapes(model), vocabulary_of(model), counted)
        try:
            return _counted(model, batch_of(setting, is_padded(model, recipe)), setting, live)
        except Exception as error:  # any code of a model may need values, and the table says so
            return Step(Counter(), Counter(), f"{type(error).__name__}: {str(error).splitlines()[0]}")
        finally:
            live.close()


def _counted(model: Any, batch: Any, setting: Setting, live: LiveBytes) -> Step:
    with live:
        for _ in range(min(setting.steps, 2)):  # from the second on, all gradients are there before
            held = forward(model, batch, setting)
            held[1].backward()
        return Step(Counter(live.peak), Counter(live.now))


def forward(model: Any, batch: Any, setting: Setting) -> tuple[Any, Tensor]:
    """The outputs, which Composer holds until the next batch, and the loss."""
    with autocast(setting):
        if isinstance(batch, tuple):
            outputs = model(batch)
            return outputs, model.loss(outputs, batch)
        outputs = model(**batch)
        return outputs, outputs["loss"]


def autocast(setting: Setting) -> AbstractContextManager:
    """The precision of the forward pass."""
    if setting.dtype is None:
        return nullcontext()
    return torch.autocast("cpu", setting.dtype) if setting.cuda else bfloat16()


def is_padded(model: Any, recipe: Any) -> bool:
    """Whether rows of a text model have padding that attention masks."""
    return hasattr(model, "config") and recipe.model.objective != "causal_lm" and not by_document(recipe)


def unmasked(model: Any, recipe: Any) -> AbstractContextManager:
    """The context in which attention makes no mask, if that is so in a run."""
    stock = getattr(recipe.model, "attention", None) == "sdpa" and "alibi" not in names_of(recipe)
    if by_document(recipe) or (stock and not is_padded(model, recipe)):
        return attention.without_masks(attention.implementations(model))
    return nullcontext()


def labelled_share(recipe: Any) -> float:
    """The largest share of labelled tokens in a batch."""
    schedule = recipe.algorithms.get("masking_schedule") or {}
    values = [*schedule.values(), *(schedule.get("stages") or {}).values()]
    shares = [value for value in values if isinstance(value, float)]
    return max([getattr(recipe.data, "mlm_probability", 1.0), *shares])


def checkpointed(model: nn.Module, setting: Setting) -> nn.Module:
    """`model` with gradient checkpointing, if the recipe or its sharding asks for it."""
    of_sharding = (setting.sharded or {}).get("activation_checkpointing", False)
    if getattr(setting.recipe.model, "gradient_checkpointing", False) or of_sharding:
        model.gradient_checkpointing_enable()  # pyright: ignore[reportCallIssue]
    return model
