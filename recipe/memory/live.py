"""A counter of the bytes of all live tensors, by part, with the parts at the peak.

It sees each operation and each storage that an operation makes, until the storage is freed. So it counts the
same on real tensors as on fake ones, and no allocator, page or cache blurs it.
"""

import weakref
from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

WEIGHTS, GRADIENTS, COPIES = "weights", "gradients", "copies"
ACTIVATIONS, LOGITS = "activations", "logits"


class LiveBytes(TorchDispatchMode):
    """Counts while it is entered; `peak` has the bytes by part at the moment of the largest sum.

    Args:
        model: its parameters and buffers are weights, and its gradients a part of their own.
        vocabulary: a matrix with so many columns is logits, or their gradient; None: there are none.
        counted: the parts whose sum has the peak; None: all.
    """

    def __init__(
        self, model: nn.Module, vocabulary: int | None = None, counted: Iterable[str] | None = None
    ) -> None:
        super().__init__()
        self.vocabulary, self.counted = vocabulary, counted and frozenset(counted)
        self.now: Counter[str] = Counter()
        self.peak: Counter[str] = Counter()
        self._live: dict[int, tuple[str, int]] = {}
        for tensor in (*model.parameters(), *model.buffers()):
            self._see(tensor, WEIGHTS)
        self._hooks = [
            parameter.register_post_accumulate_grad_hook(self._accumulated)
            for parameter in model.parameters()
            if parameter.requires_grad
        ]

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        part = COPIES if self._copies_a_weight(func, args) else None
        for tensor in tree_leaves(output):
            if isinstance(tensor, Tensor):
                self._see(tensor, part or self._part(tensor))
        return output

    def restart(self) -> None:
        """Forget the peak."""
        self.peak = Counter(self.now)

    def close(self) -> None:
        """Remove the hooks from the model."""
        for hook in self._hooks:
            hook.remove()

    def _part(self, tensor: Tensor) -> str:
        columns = tensor.shape[-1] if tensor.ndim > 1 else None
        return LOGITS if columns is not None and columns == self.vocabulary else ACTIVATIONS

    def _copies_a_weight(self, func: Any, args: tuple) -> bool:
        if func is not torch.ops.aten._to_copy.default:
            return False
        return any(self._live.get(each._cdata, ("",))[0] == WEIGHTS for each in storages(args[0]))

    def _see(self, tensor: Tensor, part: str) -> None:
        for storage in storages(tensor):
            key, size = storage._cdata, storage.nbytes()
            if key not in self._live:
                self._live[key] = part, size
                self.now[part] += size
                weakref.finalize(storage, self._free, key).atexit = False
                self._judge()

    def _free(self, key: int) -> None:
        part, size = self._live.pop(key)
        self.now[part] -= size

    def _accumulated(self, parameter: Tensor) -> None:
        assert parameter.grad is not None
        for storage in storages(parameter.grad):
            part, size = self._live[storage._cdata]
            self._live[storage._cdata] = GRADIENTS, size
            self.now[part] -= size
            self.now[GRADIENTS] += size

    def _judge(self) -> None:
        if self._sum(self.now) > self._sum(self.peak):
            self.peak = Counter(self.now)

    def _sum(self, parts: Counter[str]) -> int:
        return sum(size for part, size in parts.items() if self.counted is None or part in self.counted)


def storages(tensor: Tensor) -> list[torch.UntypedStorage]:
    """The storages of a tensor; a sparse one has two."""
    if tensor.layout == torch.sparse_coo:
        return [part.untyped_storage() for part in (tensor._indices(), tensor._values())]
    return [tensor.untyped_storage()]
