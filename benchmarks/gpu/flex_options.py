"""FlexAttention by document with ALiBi, 12 heads of 64, bf16: a forward and a backward for kernel options.

`PYTHONPATH=benchmarks python benchmarks/gpu/flex_options.py` appends to results/flex_options.csv, in 80 s.
"""

import statistics
from typing import Any

import torch
from harness import append
from torch import Tensor
from torch.nn.attention.flex_attention import flex_attention

from cadenza.attention.call import AttentionCall
from cadenza.attention.documents import Documents
from cadenza.attention.kernels.flex import TRITON, block_mask

CASES = {  # rows, longest, shortest
    "128 columns, 50% padding": (512, 128, 1),
    "128 columns, 0% padding": (512, 128, 128),
    "512 columns, 0% padding": (64, 512, 512),
    "512 columns, 50% padding": (64, 512, 1),
    "2048 columns, 0% padding": (16, 2048, 2048),
}
ROUNDS, DELAY = 12, 3_000_000  # cycles that the device waits, while the host launches


def integers(slopes: Tensor):
    return lambda score, b, head, q, k: score - slopes[head] * (q - k).abs()


def floats(slopes: Tensor):
    return lambda score, b, head, q, k: score - slopes[head] * (q.float() - k.float()).abs()


def backward(m: int, n: int) -> dict[str, int]:
    return {"bwd_BLOCK_M1": m, "bwd_BLOCK_N1": n, "bwd_BLOCK_M2": n, "bwd_BLOCK_N2": m, "bwd_num_warps": 4}


OPTIONS: dict[str, tuple[Any, dict[str, Any]]] = {
    "ints": (integers, {}),
    "floats": (floats, {}),
    "no bias": (None, {}),
    "contiguous": (floats, {"BLOCKS_ARE_CONTIGUOUS": True}),  # not true of all documents
    "safe rows": (floats, {"ROWS_GUARANTEED_SAFE": True}),
    "prescale": (floats, {"PRESCALE_QK": True}),
    "fwd 128x64 w4": (floats, {"fwd_BLOCK_N": 64}),
    "fwd 64x64 w4": (floats, {"fwd_BLOCK_M": 64, "fwd_BLOCK_N": 64}),
    "fwd 128x128 w8": (floats, {"fwd_num_warps": 8}),
    "bwd 64 w4": (floats, backward(64, 64)),
    "bwd 32,128 w4": (floats, backward(32, 128)),
    "bwd 32,64 w4": (floats, backward(32, 64)),
}


def measure(options: str, case: str) -> dict[str, object]:
    """The median seconds of a forward and of a backward."""
    rows, longest, shortest = CASES[case]
    lengths = torch.linspace(shortest, longest, rows).round().int().tolist()
    documents = Documents(tuple(lengths), torch.device("cuda"))
    mask = block_mask(AttentionCall(None, None, documents, False, None, 0.0, None))
    q, k, v, gradient = torch.randn(4, 1, 12, documents.total, 64, device="cuda", dtype=torch.bfloat16)
    inputs = [x.requires_grad_() for x in (q, k, v)]
    bias, named = OPTIONS[options]
    slopes = torch.pow(2.0, -torch.arange(1, 13, device="cuda") * 8 / 12)
    given = {"score_mod": bias and bias(slopes), "block_mask": mask, "kernel_options": TRITON | named}
    attention, times = torch.compile(flex_attention, dynamic=True, fullgraph=True), []
    for _ in range(ROUNDS + 1):
        start, middle, end = (torch.cuda.Event(enable_timing=True) for _ in range(3))
        torch.cuda._sleep(DELAY)
        start.record()
        output = attention(*inputs, **given)
        middle.record()
        output.backward(gradient)
        end.record()
        torch.cuda.synchronize()
        times.append((start.elapsed_time(middle), middle.elapsed_time(end)))
    forward, backward = (statistics.median(each) / 1e3 for each in zip(*times[1:], strict=True))
    return {"case": case, "options": options, "forward_seconds": forward, "backward_seconds": backward}


if __name__ == "__main__":
    for options in OPTIONS:
        torch._dynamo.reset()
        append([measure(options, case) for case in CASES], "flex_options")
