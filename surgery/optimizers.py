"""Optimizers follow a surgery: a new parameter takes the place of the one it replaces.

Composer's own helper refuses several parameter groups and drops parameters that another module still
uses; here every parameter is followed by name and by identity.
"""

from collections.abc import Iterable, Iterator, Sequence
from os.path import commonprefix
from typing import Any

from torch import nn
from torch.nn import Parameter
from torch.optim import Optimizer

from cadenza.surgery.errors import SurgeryError

Names = dict[str, Parameter]
Place = tuple[Optimizer, dict[str, Any]]
Memory = dict[Parameter, tuple[Place, Any]]  # where a removed parameter stood, and its state


def as_tuple(optimizers: Optimizer | Iterable[Optimizer] | None) -> tuple[Optimizer, ...]:
    """One optimizer, several or none, as a tuple."""
    if optimizers is None:
        return ()
    return (optimizers,) if isinstance(optimizers, Optimizer) else tuple(optimizers)


def named_parameters(model: nn.Module) -> Names:
    """Every name of every parameter; a tied parameter stands under each of its names."""
    return dict(model.named_parameters(remove_duplicate=False))


def sync(optimizers: Sequence[Optimizer], before: Names, after: Names, memory: Memory) -> Memory:
    """Bring `optimizers` from the parameters `before` a surgery to those `after` it.

    A parameter that came takes the group of the one of the same name, else of its nearest namesake;
    one found in `memory` goes back where it was, with its state. A parameter that went is dropped
    unless another module still holds it. Where the predecessor was in no optimizer (a frozen layer, a
    partial optimizer), neither is the successor. Returns the memory of what was dropped.
    """
    kept, known = set(after.values()), set(before.values())
    for new, names in _names_of(after).items():
        if new in known or not optimizers or _find(optimizers, new):
            continue
        place, state = memory.get(new, (None, None))
        place = place or _place_for(optimizers, new, names, before)
        if place is not None:
            _add(place, new, names[0], state)
    dropped: Memory = {}
    for old in known - kept:
        place = _find(optimizers, old)
        if place is not None:
            dropped[old] = (place, _remove(place, old))
    return dropped


def _names_of(names: Names) -> dict[Parameter, list[str]]:
    out: dict[Parameter, list[str]] = {}
    for name, parameter in names.items():
        out.setdefault(parameter, []).append(name)
    return out


def _find(optimizers: Sequence[Optimizer], wanted: Parameter) -> Place | None:
    return next((place for place, p in _members(optimizers) if p is wanted), None)


def _members(optimizers: Sequence[Optimizer]) -> Iterator[tuple[Place, Parameter]]:
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                yield (optimizer, group), parameter


def _place_for(
    optimizers: Sequence[Optimizer], new: Parameter, names: list[str], before: Names
) -> Place | None:
    """The group of the parameter that `new` replaces; for one that replaces none, the nearest."""
    same = [before[name] for name in names if name in before]
    if same:
        return _find(optimizers, same[0])
    if not new.requires_grad:
        return None
    trained = {name: place for name, p in before.items() if (place := _find(optimizers, p))}
    if not trained:
        raise SurgeryError(f"the optimizers hold no parameter of this model: where to put {names[0]}?")
    return trained[max(trained, key=lambda name: _kinship(name, names[0]))]


def _kinship(name: str, other: str) -> tuple[bool, int]:
    same_leaf = name.rpartition(".")[2] == other.rpartition(".")[2]
    return same_leaf, len(commonprefix([name.split("."), other.split(".")]))


def _add(place: Place, new: Parameter, name: str, state: Any) -> None:
    optimizer, group = place
    group["params"].append(new)
    if "param_names" in group:
        group["param_names"].append(name)
    if state is not None:
        optimizer.state[new] = state


def _remove(place: Place, old: Parameter) -> Any:
    optimizer, group = place
    index = next(i for i, p in enumerate(group["params"]) if p is old)
    del group["params"][index]
    if "param_names" in group:
        del group["param_names"][index]
    return optimizer.state.pop(old, None)
