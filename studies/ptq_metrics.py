"""How far a quantized model is from the unquantized one, on fixed text and in generated text."""

import ctypes
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


@torch.no_grad()
def on_text(
    model: Any, reference: Any, windows: Tensor, temperatures: list[float], top_k: list[int]
) -> dict[str, Any]:
    """Means over the tokens of `windows` (rows, length); memory holds the logits of one row at a time.

    Returns:
        `nll`: nats per token. `kl`, by temperature T: KL(p_reference || p_model) of softmax(logits / T), in
        nats. `top1`: how often both models have the same most likely token. `overlap`, by k: the fraction of
        the k most likely tokens that both models share.
    """
    sums: Any = Counter()
    for row in windows.split(1):
        expected, logits = (each(row).logits[0, :-1].float() for each in (reference, model))
        sums["nll"] += F.cross_entropy(logits, row[0, 1:]).item()
        sums["top1"] += (logits.argmax(-1) == expected.argmax(-1)).float().mean().item()
        for temperature in temperatures:
            sums["kl", temperature] += kl(expected, logits, temperature)
        for k in top_k:
            sums["overlap", k] += overlap(expected, logits, k)
    means = {key: value / len(windows) for key, value in sums.items()}
    return {
        "nll": means["nll"],
        "top1": means["top1"],
        "kl": {t: means["kl", t] for t in temperatures},
        "overlap": {k: means["overlap", k] for k in top_k},
    }


def kl(expected: Tensor, logits: Tensor, temperature: float) -> float:
    """The mean KL(expected || logits) in nats; both are logits (tokens, vocabulary)."""
    p, q = (F.log_softmax(x / temperature, dim=-1) for x in (expected, logits))
    return F.kl_div(q, p, reduction="sum", log_target=True).item() / len(p)


def overlap(expected: Tensor, logits: Tensor, k: int) -> float:
    """The mean fraction of the k most likely tokens that both logits (tokens, vocabulary) share."""
    member = torch.zeros_like(expected, dtype=torch.bool)
    member.scatter_(-1, expected.topk(k).indices, True)
    return member.gather(-1, logits.topk(k).indices).float().mean().item()


@torch.no_grad()
def write(
    model: Any, prompts: Tensor, seed: int, temperature: float, top_k: int, max_new_tokens: int
) -> dict[str, Any]:
    """Sample after `prompts` (rows, length), all rows at once: `ids` (rows, new), and tokens per second."""
    clock = _Clock(model.device)
    model(prompts, logits_to_keep=1)  # the first call's setup isn't timed
    prefill = clock(lambda: model(prompts, logits_to_keep=1))
    torch.manual_seed(seed)
    out: list[Tensor] = []
    options = {"min_new_tokens": max_new_tokens, "max_new_tokens": max_new_tokens, "pad_token_id": 0}
    sampling = {"do_sample": True, "temperature": temperature, "top_k": top_k, "top_p": 1.0}
    mask = torch.ones_like(prompts)
    total = clock(lambda: out.append(model.generate(prompts, attention_mask=mask, **sampling, **options)))
    new = out[0][:, prompts.shape[1] :]
    return {
        "ids": new,
        "prefill_tokens_per_second": prompts.numel() / prefill,
        "decode_tokens_per_second": (new.numel() - len(new)) / max(total - prefill, 1e-9),
    }


@torch.no_grad()
def of_text(reference: Any, prompts: Tensor, new: Tensor) -> dict[str, float]:
    """Of generated ids (rows, new): nats per token under `reference`, distinct 2-grams, repeated 4-grams."""
    logits = reference(torch.cat([prompts, new], 1)).logits[:, prompts.shape[1] - 1 : -1].float()
    return {
        "generated_nll": F.cross_entropy(logits.flatten(0, 1), new.flatten()).item(),
        "distinct_2": sum(distinct(row, 2) for row in new.tolist()) / len(new),
        "repeated_4": 1 - sum(distinct(row, 4) for row in new.tolist()) / len(new),
    }


def distinct(ids: list[int], n: int) -> float:
    """The number of different n-grams over that of all n-grams (distinct-n, Li et al., arXiv 1510.03055)."""
    grams = [tuple(ids[i : i + n]) for i in range(len(ids) - n + 1)]
    return len(set(grams)) / max(len(grams), 1)


def weight_bytes(model: Any) -> int:
    """The bytes of parameters and buffers; a tied one counts once."""
    unique = {id(t): t for t in (*model.parameters(), *model.buffers())}
    return sum(tensor.nbytes for tensor in unique.values())


@contextmanager
def peak_bytes(device: torch.device, found: list[int]) -> Iterator[None]:
    """Append to `found` the peak of the block's additional bytes (on Linux or CUDA; otherwise -1)."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield
        found.append(torch.cuda.max_memory_allocated(device) - before)
        return
    before = _reset_resident()
    yield
    found.append(_resident("VmHWM") - before if before >= 0 else -1)


def _reset_resident() -> int:
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # memory that the allocator keeps would hide the peak
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # resets the high-water mark
    except OSError:
        return -1
    return _resident("VmRSS")


def _resident(key: str) -> int:
    with open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith(key))
    return int(line.split()[1]) * 1024


class _Clock:
    """The seconds that a call takes on a device."""

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"

    def __call__(self, step: Callable[[], object]) -> float:
        self._wait()
        start = time.perf_counter()
        step()
        self._wait()
        return time.perf_counter() - start

    def _wait(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()
