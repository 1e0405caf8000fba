"""The state of a training at one moment, by name, and the first difference between two of them."""

import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

Snapshot = dict[str, Any]


def training_state(model: nn.Module, optimizers: Iterable[Optimizer], **more: Any) -> Snapshot:
    """Weights, buffers, the state and options of optimizers, `more`, and random states; copies on the CPU."""
    state = {f"weight {name}": value for name, value in flat(model.state_dict())}
    names: dict[Any, str] = {parameter: name for name, parameter in model.named_parameters()}
    for optimizer in optimizers:
        state |= dict(_optimizer_state(optimizer, names))
    state |= dict(flat(more))
    return state | dict(random_states())


def _optimizer_state(optimizer: Optimizer, names: Mapping[Any, str]) -> Iterator[tuple[str, Any]]:
    for number, group in enumerate(optimizer.param_groups):
        options = {option: value for option, value in group.items() if option != "params"}
        yield from flat(options, f"optimizer group {number}: ")
        for place, parameter in enumerate(group["params"]):
            name = names.get(parameter, f"parameter {place} of group {number}")
            for kind, value in flat(optimizer.state.get(parameter, {})):
                yield f"optimizer state {kind} of {name}", value


def random_states() -> Iterator[tuple[str, Any]]:
    """The random states of torch, numpy and Python."""
    yield "random state of torch", torch.get_rng_state()
    if torch.cuda.is_initialized():
        for device in range(torch.cuda.device_count()):
            yield f"random state of cuda:{device}", torch.cuda.get_rng_state(device)
    yield "random state of numpy", repr(np.random.get_state(legacy=False))
    yield "random state of Python", repr(random.getstate())


def flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The tensors, numbers and texts within mappings and sequences, by a dotted name; others are left out."""
    if isinstance(value, Tensor):
        yield name, value.detach().cpu().clone()
    elif isinstance(value, np.ndarray):
        yield name, torch.from_numpy(value.copy())
    elif isinstance(value, bool | int | float | str):
        yield name, value
    elif isinstance(value, Mapping | list | tuple):
        parts = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, part in parts:
            joined = f"{name}{key}" if not name or name.endswith(" ") else f"{name}.{key}"
            yield from flat(part, joined)


@dataclass(frozen=True)
class Difference:
    """The first difference between two snapshots.

    Args:
        name: of what differs.
        words: how, where there is no number.
        amount: the largest absolute difference; infinite where there is no number.
    """

    name: str
    words: str
    amount: float = float("inf")


def first_difference(expected: Snapshot, found: Snapshot) -> Difference | None:
    """The first name, in the order of `expected`, whose values aren't the same bits."""
    for name, value in expected.items():
        if name not in found:
            return Difference(name, "is missing")
        if (difference := _difference(name, value, found[name])) is not None:
            return difference
    more = [name for name in found if name not in expected]
    return Difference(more[0], "is there only after the resume") if more else None


def _difference(name: str, expected: Any, found: Any) -> Difference | None:
    if not isinstance(expected, Tensor) or not isinstance(found, Tensor):
        return None if _same(expected, found) else _of_values(name, expected, found)
    if (expected.shape, expected.dtype) != (found.shape, found.dtype):
        shapes = (f"{tuple(each.shape)} {each.dtype}" for each in (found, expected))
        return Difference(name, "is {}, not {}".format(*shapes))
    if torch.equal(_bits(expected), _bits(found)):
        return None
    if name.startswith("random state"):
        return Difference(name, "is another")
    off = (expected.double() - found.double()).abs().nan_to_num(torch.inf)
    place = ", ".join(str(int(each)) for each in np.unravel_index(int(off.argmax()), off.shape))
    return Difference(name, f"is off by {float(off.max()):.2g} at [{place}]", float(off.max()))


def _same(expected: Any, found: Any) -> bool:
    return bool(expected == found) or (expected != expected and found != found)  # NaN is itself here


def _of_values(name: str, expected: Any, found: Any) -> Difference:
    if name.startswith("random state"):
        return Difference(name, "is another")
    numbers = isinstance(expected, int | float) and isinstance(found, int | float)
    amount = abs(expected - found) if numbers else float("inf")
    return Difference(name, f"is {found!r}, not {expected!r}", float(amount))


def _bits(tensor: Tensor) -> Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)
