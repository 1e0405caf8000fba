"""What a network is called with and what it returns, by name."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor


def named_inputs(example: Any) -> dict[str, Tensor]:
    """Inputs by name: those of a mapping, `input` of one tensor, `input_0` and so on of several."""
    if isinstance(example, Mapping):
        return dict(example)
    every = example if isinstance(example, tuple | list) else (example,)
    return {"input" if len(every) == 1 else f"input_{i}": value for i, value in enumerate(every)}


def named_outputs(result: Any) -> dict[str, Tensor]:
    """Outputs by name: those of a mapping, `output` of one tensor, `output_0` and so on of several."""
    if isinstance(result, Tensor):
        return {"output": result}
    if not isinstance(result, Mapping):
        result = {f"output_{i}": value for i, value in enumerate(result)}
    return {name: value for name, value in result.items() if isinstance(value, Tensor)}


def mapped(example: Any, change: Callable[[Tensor], Any]) -> Any:
    """`example` with `change(x)` in place of each tensor x."""
    if isinstance(example, Mapping):
        return {name: change(x) for name, x in example.items()}
    return tuple(map(change, example)) if isinstance(example, tuple | list) else change(example)
