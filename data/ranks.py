"""What the first rank alone computes, or the first of each node, on all ranks of all nodes."""

import pickle
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import torch.distributed
from composer.utils import dist

from cadenza.data.errors import DataError, one_line

T = TypeVar("T")
PATIENCE = timedelta(days=7)  # the others wait for as long as the first rank lives


def show(line: str) -> None:
    """Print `line` on the first rank."""
    if dist.get_global_rank() == 0:
        print(line, flush=True)


def from_first_rank(make: Callable[[], T]) -> T:
    """What `make` returns on the first rank; no other rank calls it.

    Raises:
        Exception: what `make` raises on the first rank, on every rank.
    """
    if dist.get_world_size() == 1:
        return make()
    group, first = _patient_group(), dist.get_global_rank() == 0
    made: Any = _attempt(make) if first else (None, None)
    sent: Any = [(made[0], _sendable(made[1]))]
    torch.distributed.broadcast_object_list(sent, src=0, group=group)
    result, error = made if first else sent[0]
    if error is not None:
        raise error
    return result


def once_a_node(make: Callable[[], Any]) -> None:
    """Call `make` on the first rank of each node; the others wait until it is done on all nodes.

    Raises:
        Exception: what `make` raises on a node, on every rank.
    """
    if not torch.distributed.is_initialized() or torch.distributed.get_world_size() == 1:
        make()
        return
    error = _attempt(make)[1] if dist.get_local_rank() == 0 else None
    errors: Any = [None] * dist.get_world_size()
    torch.distributed.all_gather_object(errors, _sendable(error), group=_patient_group())
    for found in (error, *errors):
        if found is not None:
            raise found


def _patient_group() -> Any:
    """A group of its own: the usual one gives up after minutes, while a rank may need hours."""
    return torch.distributed.new_group(backend="gloo", timeout=PATIENCE)


def _attempt(make: Callable[[], Any]) -> tuple[Any, Exception | None]:
    """What `make` returns, and None; or None, and the error that it raises."""
    try:
        return make(), None
    except Exception as error:
        return None, error


def _sendable(error: Exception | None) -> Exception | None:
    """`error`, or its message in a `DataError` if it can't be pickled."""
    try:
        same = str(pickle.loads(pickle.dumps(error))) == str(error)
    except Exception:
        same = False
    return error if same or error is None else DataError(one_line(error))
