"""Checks that a Composer checkpoint fits the run: the same surgeries, the same options, every weight.

Composer itself creates the algorithms that a run leaves out, by class name in `composer.algorithms`. But it
only warns about other options, and it silently drops weights that the model doesn't have.
"""

from dataclasses import MISSING, fields
from typing import Any

import composer.algorithms
from composer.core import State

from cadenza.surgery.checkpoint import parse, saved_algorithms
from cadenza.surgery.errors import CheckpointError

SHOWN = 4


def guard(state: State, surgery: type[Any]) -> None:
    """Make `state` raise a `CheckpointError` when it loads a checkpoint that doesn't fit.

    Every load compares the options of the surgeries. A full load also requires that the checkpoint and the
    model have the same weights; a load of weights only obeys Composer's `load_strict_model_weights`.

    Args:
        surgery: the class of the algorithms whose options are compared.
    """
    if "load_model_state" not in vars(state):
        loads: Any = state
        loads.load_model_state = _ModelLoad(state, surgery, state.load_model_state)
        loads.load_state_dict = _FullLoad(state, surgery, state.load_state_dict)


def refuse_another(algorithm: Any, saved: dict[str, Any]) -> None:
    """Raise `CheckpointError` if the `saved` state is of an algorithm with other options."""
    if saved["repr"] != repr(algorithm):
        raise CheckpointError(f"the checkpoint was made with {saved['repr']}, not with {algorithm!r}")


class _ModelLoad:
    """`State.load_model_state`, after a comparison of the surgeries' options."""

    def __init__(self, state: State, surgery: type[Any], stock: Any) -> None:
        self.state, self.surgery, self.stock = state, surgery, stock

    def __call__(self, state_dict: Any, logger: Any, strict: bool, *args: Any, **kwargs: Any) -> Any:
        refuse_other_options(state_dict, [a for a in self.state.algorithms if isinstance(a, self.surgery)])
        try:
            return self.stock(state_dict, logger, strict, *args, **kwargs)
        except RuntimeError as error:
            if "Error(s) in loading state_dict" not in str(error):
                raise
            raise CheckpointError(f"the checkpoint is of another model: {_shortened(error)}") from error


class _FullLoad(_ModelLoad):
    """`State.load_state_dict`, strict about weights unless an algorithm is excluded or peft is used."""

    def __call__(self, state: Any, logger: Any, strict: bool = False, *args: Any, **kwargs: Any) -> Any:
        excluded = kwargs.get("exclude_algorithms") or []
        whole = not (excluded or getattr(self.state.model, "using_peft", False))
        loaded = self.stock(state, logger, strict or whole, *args, **kwargs)
        refuse_left_out(state, self.state, excluded)
        return loaded


def refuse_other_options(state_dict: dict[str, Any], surgeries: list[Any]) -> None:
    """Raise if one of `surgeries` has other options in the checkpoint.

    An option that the checkpoint doesn't name is younger than it. Its default is what there was before.
    """
    saved = saved_algorithms(state_dict)
    for surgery in surgeries:
        theirs = saved.get(surgery.entry.name, repr(surgery))
        then, now = {**_defaults(surgery), **parse(theirs)[1]}, surgery.options
        if then != now:
            names = [name for name in {**then, **now} if then.get(name) != now.get(name)]
            difference = "; ".join(
                f"{name} was {then.get(name)!r} and is {now.get(name)!r}" for name in names
            )
            raise CheckpointError(
                f"the checkpoint was made with {theirs}, not with {surgery!r}: {difference}"
            )


def _defaults(surgery: Any) -> dict[str, Any]:
    """The options of `surgery` that have a default, by name."""
    return {f.name: f.default for f in fields(surgery) if f.repr and f.default is not MISSING}


def refuse_left_out(state_dict: dict[str, Any], state: State, excluded: list[str]) -> None:
    """Raise if a cadenza algorithm of the checkpoint is neither in `state` nor excluded."""
    here = {type(algorithm).__name__ for algorithm in state.algorithms}
    for name, theirs in saved_algorithms(state_dict).items():
        module = getattr(getattr(composer.algorithms, name, None), "__module__", "")
        if module.startswith("cadenza.") and name not in here and name not in excluded:
            raise CheckpointError(
                f"the checkpoint was made with {theirs}, which is left out here; list it again"
            )


def _shortened(error: RuntimeError) -> str:
    """The first entries of torch's list of keys and shapes."""
    lines = [" ".join(line.split()) for line in str(error).splitlines()[1:] if line.strip()]
    entries = "; ".join(lines).split(", ")
    more = len(entries) - SHOWN
    return ", ".join(entries[:SHOWN]) + (f" and {more} more" if more > 0 else "")
