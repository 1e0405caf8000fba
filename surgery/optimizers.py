"""Updates optimizers after a surgery: a new parameter takes the place of the one it replaces.

Composer's own helper refuses several parameter groups, and drops parameters that another module still uses.
"""

from collections.abc import Iterable, Sequence
from os.path import commonprefix
from typing import Any

from torch import nn
from torch.nn import Parameter
from torch.optim import Optimizer

from cadenza.surgery.errors import SurgeryError

Optimizers = Optimizer | Sequence[Optimizer] | None  # what `apply_*` functions take
Names = dict[str, Parameter]
Place = tuple[Optimizer, dict[str, Any]]
Memory = dict[Parameter, tuple[Place, Any]]  # the place and the state of a removed parameter


def as_tuple(optimizers: Optimizer | Iterable[Optimizer] | None) -> tuple[Optimizer, ...]:
    """One optimizer, several or none, as a tuple."""
    if optimizers is None:
        return ()
    return (optimizers,) if isinstance(optimizers, Optimizer) else tuple(optimizers)


def named_parameters(model: nn.Module) -> Names:
    """Every parameter of `model` by name; a tied parameter under each of its names."""
    return dict(model.named_parameters(remove_duplicate=False))


def sync(optimizers: Sequence[Optimizer], before: Names, after: Names, memory: Memory) -> Memory:
    """Replace the parameters `before` a surgery by those `after` it; return the memory of the removed ones.

    A new parameter joins the group of the parameter that had its name; if that is in no optimizer (a frozen
    layer, a partial optimizer), nor is the new one. A new name joins the group of the most similar name. A
    parameter in `memory` goes back to its place, with its state. A parameter that no module holds is removed.
    """
    kept, known = set(after.values()), set(before.values())
    for new, names in _names_of(after).items():
        if new in known or not optimizers or _find(optimizers, new):
            continue
        place, state = memory.get(new, (None, None))
        place = place or _place_for(optimizers, new, names, before)
        if place is not None:
            _add(place, new, names[0], state)
    found = ((old, _find(optimizers, old)) for old in known - kept)
    return {old: (place, _remove(place, old)) for old, place in found if place is not None}


def _names_of(names: Names) -> dict[Parameter, list[str]]:
    """The names of each parameter."""
    found: dict[Parameter, list[str]] = {}
    for name, parameter in names.items():
        found.setdefault(parameter, []).append(name)
    return found


def _find(optimizers: Sequence[Optimizer], wanted: Parameter) -> Place | None:
    places = ((optimizer, group) for optimizer in optimizers for group in optimizer.param_groups)
    return next((place for place in places if any(p is wanted for p in place[1]["params"])), None)


def _place_for(
    optimizers: Sequence[Optimizer], new: Parameter, names: list[str], before: Names
) -> Place | None:
    """The place of the parameter that `new` replaces; if there is none, that of the most similar name."""
    same = [before[name] for name in names if name in before]
    if same:
        return _find(optimizers, same[0])
    if not new.requires_grad:
        return None
    trained = {name: place for name, p in before.items() if (place := _find(optimizers, p))}
    if not trained:
        raise SurgeryError(f"the optimizers hold no parameter of this model, so none can take {names[0]}")
    return trained[max(trained, key=lambda name: _similarity(name, names[0]))]


def _similarity(name: str, other: str) -> tuple[bool, int]:
    """Whether the last parts of two names are equal, and the number of leading parts that they share."""
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
