"""Loading a Composer checkpoint: the same surgeries with the same options, and every weight, or an error.

Composer creates left-out algorithms anew (it finds them by class name in `composer.algorithms`), but only
warns when one comes with other options, and drops weights that the model has no place for without a word.
"""

from typing import Any

import composer.algorithms
from composer.core import State

from cadenza.surgery.checkpoint import saved_algorithms
from cadenza.surgery.errors import CheckpointError
from cadenza.surgery.history import parse

SHOWN = 4


def guard(state: State) -> None:
    """Let `state` refuse checkpoints that don't fit, from here on.

    A checkpoint of a surgery with other options is refused in any load. In a full load its weights must be
    the model's, all of them; a load of weights alone keeps Composer's `load_strict_model_weights`.

    Raises, when a checkpoint is loaded:
        CheckpointError: which surgery or weight doesn't fit.
    """
    if "load_model_state" not in vars(state):
        loads: Any = state
        loads.load_model_state = _Guarded(state, state.load_model_state)
        loads.load_state_dict = _Full(state, state.load_state_dict)


class _Guarded:
    """`State.load_model_state`, after a look at the surgeries."""

    def __init__(self, state: State, stock: Any) -> None:
        self.state, self.stock = state, stock

    def __call__(
        self, state_dict: dict[str, Any], logger: Any, strict: bool, *args: Any, **kwargs: Any
    ) -> Any:
        refuse_other_options(state_dict, self.state)
        try:
            return self.stock(state_dict, logger, strict, *args, **kwargs)
        except RuntimeError as error:
            if "Error(s) in loading state_dict" not in str(error):
                raise
            raise CheckpointError(f"the checkpoint is of another model: {_in_short(error)}") from error


class _Full(_Guarded):
    """`State.load_state_dict` that wants every weight to find its place, unless an algorithm is excluded."""

    def __call__(
        self, state: dict[str, Any], logger: Any, strict: bool = False, *args: Any, **kwargs: Any
    ) -> Any:
        excluded = kwargs.get("exclude_algorithms") or []
        adapters_alone = getattr(self.state.model, "using_peft", False)
        whole = not (excluded or adapters_alone)
        loaded = self.stock(state, logger, strict or whole, *args, **kwargs)
        refuse_left_out(state, self.state, excluded)
        return loaded


def refuse_other_options(state_dict: dict[str, Any], state: State) -> None:
    """Raise if a surgery of `state` stands in the checkpoint with other options."""
    from cadenza.surgery.engine import Surgery

    saved = saved_algorithms(state_dict)
    for algorithm in state.algorithms:
        name, ours = type(algorithm).__name__, repr(algorithm)
        theirs = saved.get(name, ours)
        if isinstance(algorithm, Surgery) and theirs != ours:
            difference = _difference(theirs, ours)
            raise CheckpointError(f"the checkpoint was made with {theirs}, not with {ours}: {difference}")


def refuse_left_out(state_dict: dict[str, Any], state: State, excluded: list[str]) -> None:
    """Raise if one of our algorithms in the checkpoint is neither in `state` by now nor excluded."""
    here = {type(algorithm).__name__ for algorithm in state.algorithms}
    for name, theirs in saved_algorithms(state_dict).items():
        module = getattr(getattr(composer.algorithms, name, None), "__module__", "")
        if module.startswith("cadenza.") and name not in here and name not in excluded:
            raise CheckpointError(
                f"the checkpoint was made with {theirs}, which is left out here; list it again"
            )


def _difference(theirs: str, ours: str) -> str:
    then, now = parse(theirs)[1], parse(ours)[1]
    names = [name for name in {**then, **now} if then.get(name) != now.get(name)]
    return "; ".join(f"{name} was {then.get(name)!r} and is {now.get(name)!r}" for name in names)


def _in_short(error: RuntimeError) -> str:
    """Torch's list of keys and shapes, its first entries."""
    lines = [" ".join(line.split()) for line in str(error).splitlines()[1:] if line.strip()]
    text = "; ".join(lines)
    entries = text.split(", ")
    more = len(entries) - SHOWN
    return ", ".join(entries[:SHOWN]) + (f" and {more} more" if more > 0 else "")
