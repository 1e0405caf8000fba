"""Updates optimizers after a surgery: a new parameter takes the place of the one it replaces.

Composer's own helper refuses several parameter groups, and drops parameters that another module still uses.
"""

from collections.abc import Iterable, Sequence
from itertools import takewhile
from os.path import commonprefix
from typing import Any
from weakref import WeakKeyDictionary, ref

from torch import Tensor, nn
from torch.nn import Parameter
from torch.optim import Optimizer

from cadenza.surgery.errors import SurgeryError
from cadenza.surgery.parameters import with_rows

Optimizers = Optimizer | Sequence[Optimizer] | None  # what `apply_*` functions take
Names = dict[str, Parameter]
Place = tuple[Optimizer, dict[str, Any]]
Memory = dict[Parameter, tuple[Place, Any]]  # the place and the state of a removed parameter
Order = list[Parameter]

# The parameters that an optimizer holds or has held, in order, so that one that comes back finds its place.
_ORDERS: WeakKeyDictionary[Optimizer, list[ref[Parameter]]] = WeakKeyDictionary()


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

    A new parameter takes the place of the parameter that had its name; if that is in no optimizer (a frozen
    layer, a partial optimizer), nor is the new one. A new name joins the group of the most similar name, in
    the order of the model; similar are the last part, then whether it is a matrix, then the path. A parameter
    in `memory` goes back to its place, with its state. A parameter that no module holds is removed. The state
    of a parameter with other rows is cut, or filled with zeros.
    """
    known, names = set(before.values()), _names_of(after)
    orders = {optimizer: _order(optimizer) for optimizer in optimizers}
    for new in names if optimizers else ():
        if new in known or _find(optimizers, new):
            continue
        place, state = memory.get(new, (None, None))
        place = place or _place_for(optimizers, new, names[new], before)
        if place is not None:
            order = orders[place[0]]
            _insert(order, new, _leader(place, new, names, before))
            _add(place, new, names[new][0], state, order)
    found = ((old, _find(optimizers, old)) for old in known - names.keys())
    removed = {old: (place, _remove(place, old)) for old, place in found if place is not None}
    for optimizer, order in orders.items():
        _ORDERS[optimizer] = [ref(p) for p in order]
        _fit_state(optimizer)
    return removed


def _order(optimizer: Optimizer) -> Order:
    """The parameters that `optimizer` holds or has held, unless someone else reordered them."""
    held = [p for group in optimizer.param_groups for p in group["params"]]
    known = [p for r in _ORDERS.get(optimizer, ()) if (p := r()) is not None]
    ids = {id(p) for p in held}
    return known if [id(p) for p in known if id(p) in ids] == [id(p) for p in held] else held


def _leader(
    place: Place, new: Parameter, names: dict[Parameter, list[str]], before: Names
) -> Parameter | None:
    """The parameter that `new` replaces; else the last one of its group that comes before it in the model."""
    group = {id(p) for p in place[1]["params"]}
    old = [before[name] for name in names[new] if name in before]
    replaced = [p for p in old if p not in names and id(p) in group]
    if replaced:
        return replaced[0]
    earlier = [p for p in takewhile(lambda p: p is not new, names) if id(p) in group]
    return earlier[-1] if earlier else None


def _insert(order: Order, new: Parameter, leader: Parameter | None) -> None:
    """Put `new` behind `leader`, or in front of all others, unless it is in `order` already."""
    ids = [id(p) for p in order]
    if id(new) not in ids:
        order.insert(ids.index(id(leader)) + 1 if leader is not None else 0, new)


def _fit_state(optimizer: Optimizer) -> None:
    """Give the moments of each parameter as many rows as the parameter has."""
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            moment = isinstance(value, Tensor) and value.ndim == parameter.ndim > 0
            if moment and len(value) != len(parameter):
                if not value.is_floating_point():
                    raise SurgeryError(
                        f"{type(optimizer).__name__} keeps {key} in {value.dtype}, which can't get other "
                        "rows; operate before its first step"
                    )
                state[key] = with_rows(value, len(parameter))


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

    def fit(name: str) -> tuple[bool, bool, int]:
        same_leaf, shared = _similarity(name, names[0])
        return same_leaf, (before[name].ndim > 1) == (new.ndim > 1), shared  # others often have no decay

    return trained[max(trained, key=fit)]


def _similarity(name: str, other: str) -> tuple[bool, int]:
    """Whether the last parts of two names are equal, and the number of leading parts that they share."""
    same_leaf = name.rpartition(".")[2] == other.rpartition(".")[2]
    return same_leaf, len(commonprefix([name.split("."), other.split(".")]))


def _add(place: Place, new: Parameter, name: str, state: Any, order: Order) -> None:
    optimizer, group = place
    positions = {id(p): position for position, p in enumerate(order)}
    index = sum(positions[id(p)] < positions[id(new)] for p in group["params"])
    group["params"].insert(index, new)
    if "param_names" in group:
        group["param_names"].insert(index, name)
    if state is not None:
        optimizer.state[new] = state


def _remove(place: Place, old: Parameter) -> Any:
    optimizer, group = place
    index = next(i for i, p in enumerate(group["params"]) if p is old)
    del group["params"][index]
    if "param_names" in group:
        del group["param_names"][index]
    return optimizer.state.pop(old, None)
