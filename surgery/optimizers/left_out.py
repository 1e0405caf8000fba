"""New parameters that no optimizer holds: an error in a Trainer, elsewhere a warning at an optimizer's step.

A model doesn't know its optimizers. But an optimizer that holds a parameter which a surgery replaced was made
before the surgery; if it doesn't hold the new parameters, they are not trained.
"""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any
from weakref import WeakSet, ref

from torch import nn
from torch.nn import Parameter
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

from cadenza.surgery.errors import SurgeryError

SHOWN = 3


@dataclass
class _Exchange:
    """The trainable parameters that a surgery took from a model and gave to it."""

    surgery: str
    old: list[ref[Parameter]]
    new: list[ref[Parameter]]


_EXCHANGES: list[_Exchange] = []
_CHECKED: WeakSet[Optimizer] = WeakSet()  # since the last exchange


def refuse_left_out(model: nn.Module, optimizers: Sequence[Optimizer]) -> None:
    """Raise if trainable parameters that surgeries made for `model` are in none of its `optimizers`.

    Others may be left out on purpose. Without optimizers all is well.

    Raises:
        SurgeryError: names the first of them.
    """
    new = {number for exchange in _EXCHANGES for number in _alive(exchange.new)}
    new -= {id(p) for p in _held(optimizers)}
    left = [name for name, p in model.named_parameters() if p.requires_grad and id(p) in new]
    if optimizers and left:
        shown = ", ".join(left[:SHOWN]) + (", ..." if len(left) > SHOWN else "")
        raise SurgeryError(
            f"{len(left)} new parameters are in no optimizer, so they would not train: {shown}; make "
            "the optimizer after all surgeries, pass it as optimizers= to each apply_ function, or freeze "
            "them by requires_grad_(False)"
        )


def watch(surgery: str, old: Iterable[Parameter], new: Iterable[Parameter]) -> None:
    """Warn when an optimizer takes a step that holds one of the `old` parameters, but not all `new` ones."""
    exchange = _Exchange(surgery, [ref(p) for p in old], [ref(p) for p in new])
    if exchange.old and exchange.new:
        _EXCHANGES.append(exchange)
        _CHECKED.clear()
        _hook()


@cache
def _hook() -> None:
    register_optimizer_step_pre_hook(_before_step)


def _before_step(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    if optimizer in _CHECKED:
        return
    _CHECKED.add(optimizer)
    held = {id(p) for p in _held([optimizer])}
    for exchange in list(_EXCHANGES):
        old, new = (_alive(each) for each in (exchange.old, exchange.new))
        if not old or not new:
            _EXCHANGES.remove(exchange)
        elif held & old and new - held:
            warnings.warn(
                f"{type(optimizer).__name__} was made before {exchange.surgery} and holds none or not all of "
                f"the {len(new)} parameters that this made, so they are not trained: pass the optimizer as "
                "optimizers=, or make it afterwards",
                stacklevel=2,
            )


def _held(optimizers: Iterable[Optimizer]) -> list[Parameter]:
    return [p for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]]


def _alive(refs: list[ref[Parameter]]) -> set[int]:
    return {id(p) for each in refs if (p := each()) is not None}
