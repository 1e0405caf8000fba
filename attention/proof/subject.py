"""Who proves a technique when it is applied: each base model that isn't of a tested family."""

import inspect
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from cadenza.attention.modules import base_models
from cadenza.attention.plan import AttentionPlan, plan_of
from cadenza.attention.proof.watch import Watch, watched
from cadenza.probes.sequences import Draw
from cadenza.probes.untouched import untouched
from cadenza.surgery.errors import SurgeryError
from cadenza.surgery.parameters import Moved
from cadenza.surgery.retype import stock_class

TESTED = {
    f"transformers.models.{name}.modeling_{name}"
    for name in (
        *("albert", "bert", "distilbert", "electra", "gpt2", "llama", "mistral", "modernbert"),
        *("qwen2", "qwen3", "roberta", "xlm_roberta"),
    )
}
SKIP = "prove=False applies it all the same"


class Subject:
    """A base model under proof, and tokens to call it with."""

    def __init__(self, base: Any) -> None:
        self.base, self.draw = base, Draw(base)
        self.device = base.get_input_embeddings().weight.device

    def tokens(self, *shape: int) -> Tensor:
        """Random tokens of `shape`."""
        return self.draw.tokens(*shape).to(self.device)

    def hidden(self, ids: Tensor, **inputs: Any) -> Tensor:
        """(batch, length, hidden), the last hidden state of the model as it is, with the techniques on it."""
        if "use_cache" in inspect.signature(stock_class(self.base).forward).parameters:
            inputs["use_cache"] = False
        return self.base(input_ids=ids, **inputs)[0]

    def stock(self, ids: Tensor, watch: Watch | None = None, **inputs: Any) -> Tensor:
        """`hidden`, but computed by the stock code, watched by `watch`."""
        plan = self.base.batch_plan
        self.base.batch_plan = replace(plan, kernel=None, layout=None, packing=None)
        try:
            with watched(self.base, watch or Watch()):
                return self.hidden(ids, **inputs)
        finally:
            self.base.batch_plan = plan


Claim = Callable[[Subject], None]
"""Raises a `SurgeryError` if a base model doesn't meet it."""


def prove(model: nn.Module, *claims: Claim) -> None:
    """Check `claims` on each base model of `model` that isn't of a tested family.

    Raises:
        SurgeryError: a claim doesn't hold, or the model can't be called.
    """
    for base in base_models(model):
        if not is_tested(base):
            with proving(base):
                for claim in claims:
                    claim(Subject(base))


def refuse_on_meta(base: Any) -> None:
    """Raise if `base`, which has no numbers, is of no tested family."""
    if not is_tested(base):
        raise SurgeryError(on_meta(base))


def on_meta(model: Any) -> str:
    """Why `model`, which has no numbers, is refused."""
    name = stock_class(model).__name__
    return f"{name} is of no tested family, and nothing can be proved on meta; {SKIP}"


def use_own_kernels(base: Any) -> None:
    """Let each attention compute with the model's own kernel, which takes any dtype on any device."""
    for module in base.modules():
        if isinstance(plan := plan_of(module), AttentionPlan):
            module.attention_plan = replace(plan, kernel=None)


def is_tested(model: Any) -> bool:
    """Whether techniques are tested on the family of `model` with any config, and it has no other parts."""
    return has_stock_parts(model) and stock_class(model).__module__ in TESTED


def has_stock_parts(model: nn.Module) -> bool:
    """Whether `model` and all in it are classes of transformers and torch, before any surgery."""
    parts = {stock_class(part).__module__ for part in model.modules() if not isinstance(part, Moved)}
    return all(part.startswith(("torch.nn.", "transformers.")) for part in parts)


@contextmanager
def proving(model: Any) -> Iterator[None]:
    """Within, `model` is in eval mode with its own kernels; an error names it, and the way around.

    Raises:
        SurgeryError: the proof fails, the model can't be called, or it is on the meta device.
    """
    name = stock_class(model).__name__
    if any(parameter.is_meta for parameter in model.parameters()):
        raise SurgeryError(on_meta(model))
    with untouched(model), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.eval()
        use_own_kernels(model)
        try:
            yield
        except SurgeryError as error:
            raise SurgeryError(f"{name}: {error}; {SKIP}") from error
        except Exception as error:  # an unknown model may raise anything
            raise SurgeryError(f"{name} can't be called on a few tokens: {error!r:.200}; {SKIP}") from error
