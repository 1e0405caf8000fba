"""Opens the seam: every attention module of a model calls `attend`, by its plan."""

import inspect
from collections.abc import Iterator
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from cadenza.attention.base_model import ReadsDocuments
from cadenza.attention.modules import (
    SEAMS,
    FollowsImplementation,
    ReadsLabels,
    attention_modules,
    base_models,
    planned,
    stock_name,
)
from cadenza.attention.plan import AttentionPlan, BatchPlan, plan_of
from cadenza.surgery.errors import NoEffect, SurgeryError
from cadenza.surgery.retype import Mixin, Undo, mix, stock_class, unmix


def open_seam(model: nn.Module) -> Iterator[Undo]:
    """Make every attention module of `model` call `attend`, and give it an empty plan; see `close_seam`.

    Raises:
        NoEffect: the model has no encoder or decoder on transformers' attention interface.
        SurgeryError: it computes attention with anything but `sdpa` or `eager`, or it isn't a text model.
    """
    bases = base_models(model)
    if not bases:
        name = type(model).__name__
        raise NoEffect(f"{name} has no encoder or decoder whose attention is on transformers' interface")
    for base in bases:
        _refuse_other_inputs(model, base)
    yield lambda: close_seam(model)
    for module in attention_modules(model):
        if plan_of(module) is None:
            stock = stock_name(module.config._attn_implementation)
            module.attention_plan = AttentionPlan(stock)
            module.config._attn_implementation = SEAMS[stock]
    for base in bases:
        if plan_of(base) is None:
            base.batch_plan = BatchPlan(next(attention_modules(base)).attention_plan.stock)
            mix(base, ReadsDocuments)
    for host in _hosts(model):
        _once(host, FollowsImplementation)
        if plan_of(host) is None and base_models(host):
            _once(host, ReadsLabels)


def close_seam(model: nn.Module) -> None:
    """Restore the stock attention of `model`, unless a technique still has a claim."""
    modules = planned(model)
    if any(plan_of(module).claims() for module in modules):
        return
    for module in modules:
        unmix(module, ReadsDocuments)
        module.config._attn_implementation = plan_of(module).stock
        vars(module).pop("attention_plan", None)
        vars(module).pop("batch_plan", None)
    for host in _hosts(model):
        unmix(host, FollowsImplementation)
        unmix(host, ReadsLabels)


def _refuse_other_inputs(model: nn.Module, base: Any) -> None:
    """Raise if `base` doesn't take tokens, or stands beside another base model, as in a multi-modal model."""
    for outer in model.modules():
        if not isinstance(outer, PreTrainedModel) or outer.base_model is not outer:
            continue
        if len(inner := base_models(outer)) > 1 and base in inner:
            names = " and ".join(stock_class(each).__name__ for each in inner)
            raise SurgeryError(f"{stock_class(outer).__name__} consists of {names}; operate on one of them")
    if "input_ids" not in inspect.signature(stock_class(base).forward).parameters:
        name = stock_class(base).__name__
        raise SurgeryError(f"{name} takes no input_ids; attention is changed in text models alone")


def _once(host: Any, mixin: type[Mixin]) -> None:
    if not isinstance(host, mixin):
        mix(host, mixin)


def _hosts(model: nn.Module) -> list[Any]:
    return [m for m in model.modules() if isinstance(m, PreTrainedModel) and any(attention_modules(m))]
