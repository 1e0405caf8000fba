"""Where graphs of `torch.compile` end."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch

F = TypeVar("F", bound=Callable[..., Any])


def uncompiled(function: F) -> F:
    """`function`, outside of any graph: `torch.compiler.disable`, with a type that checkers can follow."""
    return torch.compiler.disable(function)  # pyright: ignore[reportReturnType]
