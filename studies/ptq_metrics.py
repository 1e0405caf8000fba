"""How far a quantized model is from the model it was, on fixed text and in what it writes."""

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
    """Means over the tokens of `windows` (rows, length), of whose logits each window's are held at a time.

    Returns:
        nll (nats a token); `kl`, by temperature T: KL(p_reference || p_model) of softmax(logits / T), nats;
        `top1`: the share of tokens with the same most likely successor; `overlap`, by k: the share of common
        tokens among the k most likely.
    """
    sums: Any = Counter()
    for row in windows.split(1):
        theirs, ours = (each(row).logits[0, :-1].float() for each in (reference, model))
        sums["nll"] += F.cross_entropy(ours, row[0, 1:]).item()
        sums["top1"] += (ours.argmax(-1) == theirs.argmax(-1)).float().mean().item()
        for heat in temperatures:
            sums["kl", heat] += kl(theirs, ours, heat)
        for k in top_k:
            sums["overlap", k] += overlap(theirs, ours, k)
    means = {key: value / len(windows) for key, value in sums.items()}
    return {
        "nll": means["nll"],
        "top1": means["top1"],
        "kl": {heat: means["kl", heat] for heat in temperatures},
        "overlap": {k: means["overlap", k] for k in top_k},
    }


def kl(theirs: Tensor, ours: Tensor, temperature: float) -> float:
    """Mean KL(theirs || ours) of two (tokens, vocabulary) logits at a temperature, in nats."""
    p, q = (F.log_softmax(logits / temperature, dim=-1) for logits in (theirs, ours))
    return F.kl_div(q, p, reduction="sum", log_target=True).item() / len(p)


def overlap(theirs: Tensor, ours: Tensor, k: int) -> float:
    """The share of the k most likely tokens of each row that both have."""
    member = torch.zeros_like(theirs, dtype=torch.bool)
    member.scatter_(-1, theirs.topk(k).indices, True)
    return member.gather(-1, ours.topk(k).indices).float().mean().item()


@torch.no_grad()
def write(
    model: Any, prompts: Tensor, seed: int, temperature: float, top_k: int, max_new_tokens: int
) -> dict[str, Any]:
    """Sample from `prompts` (rows, length), all rows at once: the ids (rows, new), and tokens a second."""
    clock = _Clock(model.device)
    model(prompts, logits_to_keep=1)  # what the first call sets up isn't timed
    prefill = clock(lambda: model(prompts, logits_to_keep=1))
    torch.manual_seed(seed)
    out: list[Tensor] = []
    options = {"min_new_tokens": max_new_tokens, "max_new_tokens": max_new_tokens, "pad_token_id": 0}
    sampling = {"do_sample": True, "temperature": temperature, "top_k": top_k, "top_p": 1.0}
    mask = torch.ones_like(prompts)
    whole = clock(lambda: out.append(model.generate(prompts, attention_mask=mask, **sampling, **options)))
    new = out[0][:, prompts.shape[1] :]
    return {
        "ids": new,
        "prefill_tokens_per_second": prompts.numel() / prefill,
        "decode_tokens_per_second": (new.numel() - len(new)) / max(whole - prefill, 1e-9),
    }


@torch.no_grad()
def of_text(reference: Any, prompts: Tensor, new: Tensor) -> dict[str, float]:
    """Of generated ids (rows, new): nats a token under `reference`, distinct pairs, repeated fours."""
    logits = reference(torch.cat([prompts, new], 1)).logits[:, prompts.shape[1] - 1 : -1].float()
    return {
        "generated_nll": F.cross_entropy(logits.flatten(0, 1), new.flatten()).item(),
        "distinct_2": sum(distinct(row, 2) for row in new.tolist()) / len(new),
        "repeated_4": 1 - sum(distinct(row, 4) for row in new.tolist()) / len(new),
    }


def distinct(ids: list[int], n: int) -> float:
    """Different n-grams in proportion to all (distinct-n, Li et al., arXiv 1510.03055)."""
    grams = [tuple(ids[i : i + n]) for i in range(len(ids) - n + 1)]
    return len(set(grams)) / max(len(grams), 1)


def weight_bytes(model: Any) -> int:
    """Bytes of parameters and buffers, each tied one once."""
    unique = {id(t): t for t in (*model.parameters(), *model.buffers())}
    return sum(tensor.nbytes for tensor in unique.values())


@contextmanager
def peak_bytes(device: torch.device, found: list[int]) -> Iterator[None]:
    """Put into `found` what the block took at most beyond what stood before (Linux or CUDA; else -1)."""
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
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # what the allocator keeps would hide the peak
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
    """Seconds of a call, on a device."""

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
