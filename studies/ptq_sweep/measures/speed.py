"""How fast a quantized model reads prompts and generates, in turns with the unquantized one."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from cadenza.studies.memory import weight_bytes
from cadenza.studies.ptq_sweep.measures.sampling import forward, read_prompts

SHARE = 0.6  # of a device's memory for the weights of both models; caches and logits need the rest

Speeds = dict[str, list[float]]


def in_turns(plain: Any, quantized: Any, prompts: Tensor, new: int, rounds: int, swap: bool) -> Speeds:
    """Tokens a second of each round, behind a round that isn't counted.

    Each round has both models, in changing order, so that a machine that becomes slower is no difference
    between them.

    Args:
        prompts: token ids (batch, length).
        new: tokens that each row generates, greedily and past an end token.
        swap: whether the model that isn't measured waits in the host's memory.

    Returns:
        `prefill`, `decode`, and the same of the unquantized model as `plain_prefill`, `plain_decode`.
    """
    found: Speeds = {name: [] for name in ("prefill", "decode", "plain_prefill", "plain_decode")}
    for turn in range(rounds + 1):
        pair = [("", quantized), ("plain_", plain)]
        for prefix, model in pair if turn % 2 else reversed(pair):
            with _on_device(model, swap):
                speeds = round_of(model, prompts, new)
            for name, value in speeds.items() if turn else ():
                found[prefix + name].append(value)
    return found


@torch.no_grad()
def round_of(model: Any, prompts: Tensor, new: int) -> dict[str, float]:
    """Tokens a second: `prefill` of `prompts` (batch, length), and `decode` of `new` tokens in each row."""
    prompts = prompts.to(model.device)
    cuda = prompts.is_cuda
    if cuda:
        read_prompts(model, prompts)  # the first call on a device sets it up
    (cache, logits), read = _timed(lambda: read_prompts(model, prompts), cuda)
    _, written = _timed(lambda: _decode(model, prompts, cache, logits, new), cuda)
    return {"prefill": prompts.numel() / read, "decode": len(prompts) * new / written}


def _decode(model: Any, prompts: Tensor, cache: Any, logits: Tensor, new: int) -> None:
    mask = torch.ones_like(prompts)
    for _ in range(new):
        ids = logits.argmax(-1, keepdim=True).to(prompts.device)
        mask = torch.nn.functional.pad(mask, (0, 1), value=1)
        logits = forward(model, ids, mask, cache)[:, -1]


def _timed(step: Callable[[], Any], cuda: bool) -> tuple[Any, float]:
    if cuda:
        torch.cuda.synchronize()
    start = time.perf_counter()
    result = step()
    if cuda:
        torch.cuda.synchronize()
    return result, max(time.perf_counter() - start, 1e-9)


@contextmanager
def _on_device(model: Any, swap: bool) -> Iterator[None]:
    if swap:
        model.to("cuda")
    yield
    if swap:
        model.to("cpu")


def must_swap(*models: Any) -> bool:
    """Whether `models` would fill more than `SHARE` of the CUDA device, if there is one."""
    if not torch.cuda.is_available():
        return False
    return sum(map(weight_bytes, models)) > SHARE * torch.cuda.get_device_properties(0).total_memory
