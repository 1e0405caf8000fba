"""Watches the attention of one model: which calls it makes, and what its masks hide.

A mask of transformers is made from a function of two places. The function is known wherever it is asked, so
a few tokens are enough to learn what a mask hides at 100,000.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers.masking_utils import sdpa_mask

from cadenza.attention.call import visible

FAR = 2**17  # places are compared up to here


@dataclass
class Watch:
    """What was seen of a model's attention.

    Args:
        seen: (q, k) bool, which keys each query sees in place of its own mask and bias; None: leave both.
    """

    seen: Tensor | None = None
    calls: list[tuple[Any, dict[str, Any], Tensor | None]] = field(default_factory=list)
    masks: list[tuple[Tensor, Callable]] = field(default_factory=list)  # in the order in which they were made

    def function(self, mask: Tensor) -> Callable | None:
        """The function that `mask` was made from; None if it wasn't made by transformers."""
        place = mask.untyped_storage().data_ptr()
        made = (f for own, f in self.masks if own.untyped_storage().data_ptr() == place)
        return next(made, None)


_WATCHES: dict[int, Watch] = {}  # by the id of a config


@contextmanager
def watched(model: nn.Module, watch: Watch) -> Iterator[Watch]:
    """Let `watch` see the calls of `model`, whose seam is open."""
    configs = {id(module.config) for module in model.modules() if hasattr(module, "config")}
    _WATCHES.update(dict.fromkeys(configs, watch))
    try:
        yield watch
    finally:
        for config in configs:
            del _WATCHES[config]


def watch_of(module: Any) -> Watch | None:
    """The watch of the model that contains `module`; None if it isn't watched."""
    return _WATCHES.get(id(module.config)) if _WATCHES else None


def seam_mask(*args: Any, **kwargs: Any) -> Tensor | None:
    """Transformers' mask for `sdpa`: (batch, 1, q, k), True where a query sees a key.

    While the model is watched there always is one.
    """
    watch = _WATCHES.get(id(kwargs.get("config")))
    if watch is None:
        return sdpa_mask(*args, **kwargs)
    kwargs |= {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False}
    mask: Any = sdpa_mask(*args, **kwargs)
    watch.masks.append((mask, kwargs["mask_function"]))
    return mask


def hides_the_same(function: Callable, config: Any, *, causal: bool, window: int | None) -> bool:
    """Whether a mask made from `function` hides what `visible` hides, also far beyond the watched tokens.

    Places next to each number in the config are compared, where a window or a chunk may end.
    """
    at = _places(config)
    zero = torch.zeros((1, 1, 1, 1), dtype=torch.long)
    q, k = at[None, None, :, None], at[None, None, None, :]
    try:
        theirs = function(zero, zero, q, k)
    except (IndexError, RuntimeError):  # it looks something up by place
        return False
    return bool((theirs == visible(q, k, causal=causal, window=window)).all())


def _places(config: Any) -> Tensor:
    numbers = {value for value in _numbers(config.to_dict()) if 1 < value < FAR}
    numbers |= {2**n for n in range(FAR.bit_length())}
    near = {number + offset for number in numbers for offset in (-2, -1, 0, 1, 2)}
    return torch.tensor(sorted({0, *near, *range(32)} - {-2, -1}))


def _numbers(value: Any) -> Iterator[int]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for each in value:
            yield from _numbers(each)
    elif isinstance(value, int) and not isinstance(value, bool):
        yield value
