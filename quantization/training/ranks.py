"""What the ranks of a process group measure becomes one average; until then each rank keeps its own."""

from collections.abc import Sequence
from typing import Any
from weakref import WeakSet

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from cadenza.quantization.training.averages import BUFFERS
from cadenza.surgery.errors import SurgeryError

_told: WeakSet[nn.Module] = WeakSet()


def average_over_ranks(layers: Sequence[Any]) -> None:
    """Replace the averages and weights of `layers`, the same on each rank, by their means over all ranks.

    A rank thereby counts by the batches that it has seen, and one that has seen none doesn't count.
    """
    if not layers or _world() == 1:
        return
    buffers = [layer._buffers[name] for layer in layers for name in BUFFERS[:2]]
    flat = torch.cat([buffer.flatten() for buffer in buffers])
    flat = flat.div(_world(), rounding_mode="floor")  # before the sum, which may not fit otherwise
    dist.all_reduce(flat)
    for buffer, part in zip(buffers, flat.split([b.numel() for b in buffers]), strict=True):
        buffer.copy_(part.view_as(buffer))


def agree(paths: Sequence[str]) -> None:
    """Raise a SurgeryError on each rank unless `paths`, of the layers that still measure, are the same."""
    if _world() == 1:
        return
    every: list[Any] = [None] * _world()
    dist.all_gather_object(every, list(paths))
    if differing := set.union(*map(set, every)) - set.intersection(*map(set, every)):
        path = min(differing)
        ranks = [rank for rank, theirs in enumerate(every) if path in theirs]
        raise SurgeryError(f"{path} calibrates on ranks {ranks} alone; load the same state on each rank")


def leave_to_this_rank() -> None:
    """Keep DDP, if the running forward is one of it, from overwriting averages by those of rank 0.

    `leave_to_each_rank` tells a model that was operated on as a whole. DDP around a larger model asks the
    larger one. Until the second forward all ranks hold the same, so this is in time.
    """
    wrapper = DistributedDataParallel._get_active_ddp_module()
    if wrapper is None or wrapper in _told:
        return
    _told.add(wrapper)
    for path, module in wrapper.module.named_modules():
        if BUFFERS[0] in module._buffers:
            prefix = f"{path}." if path else ""
            wrapper.parameters_to_ignore.update(prefix + name for name in BUFFERS)


def _world() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
