"""The kernel `triton` by document with ALiBi, 12 heads of 64, bf16: each of its programs in several tiles.

`PYTHONPATH=benchmarks python benchmarks/gpu/triton_tiles.py` appends to results/triton_tiles.csv. Processes
compile first; the times are those of one alone.
"""

import itertools
import statistics
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import Any

import torch
from gpu.flex_options import CASES as EVERY
from harness import append

from cadenza.algorithms.alibi import AlibiBias
from cadenza.attention.call import AttentionCall
from cadenza.attention.documents import Documents
from cadenza.attention.kernels import triton_operators as operators
from cadenza.attention.kernels.triton import read

CASES = {name: EVERY[name] for name in EVERY if not name.startswith("512")}
PROGRAMS = ("forward", "keys", "queries")
TILES = [
    operators.Tile(*sizes)
    for sizes in [
        *((64, 64, 4, stages) for stages in (1, 2, 3)),
        *((128, 64, 4, stages) for stages in (1, 2, 3)),
        *((64, 128, 4, 2), (64, 128, 8, 2), (128, 64, 8, 2), (128, 64, 8, 3)),
        *((64, 32, 4, 2), (32, 64, 4, 2), (128, 32, 4, 2)),
    ]
]
ROUNDS, DELAY = 12, 2_000_000  # cycles that the device waits, while the host launches


def call_of(case: str) -> AttentionCall:
    rows, longest, shortest = CASES[case]
    lengths = torch.linspace(shortest, longest, rows).round().int().tolist()
    documents = Documents(tuple(lengths), torch.device("cuda"))
    return AttentionCall(None, AlibiBias(), documents, False, None, 0.0, None)


def seconds(run: Callable[[], Any], rounds: int = ROUNDS) -> float:
    """The median seconds of `run` on the device."""
    times = []
    for _ in range(rounds + 1):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda._sleep(DELAY)
        start.record()
        run()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end) / 1e3)
    return statistics.median(times[1:])


def inputs(total: int) -> list[torch.Tensor]:
    return list(torch.randn(4, 1, total, 12, 64, device="cuda", dtype=torch.bfloat16))


def programs(case: str) -> dict[str, Callable[[], Any]]:
    """The forward and the backward of a case, by the programs that they run."""
    call = call_of(case)
    q, k, v, up = (x[0] for x in inputs(call.documents.total))
    starts, slopes = read(call, 12)
    options = starts, slopes, 0.125, False, -1, call.documents.longest
    output, logs = operators.attention(q, k, v, *options)
    inner = (output.float() * up.float()).sum(-1).t().contiguous()
    forward = partial(operators.attention, q, k, v, *options)
    backward = partial(operators.attention_backward, up, inner, q, k, v, logs, *options)
    return {"forward": forward, "keys": backward, "queries": backward}


def measure(program: str, tile: operators.Tile, rounds: int = ROUNDS) -> list[dict[str, object]]:
    """The seconds of the operator that runs `program`, which alone has this tile."""
    stock = operators.tile_of
    operators.tile_of = lambda name, head_dim: tile if name == program else operators.Tile(64, 64, 4, 2)
    try:
        named = {"program": program, **tile._asdict()}
        return [{"case": c, **named, "seconds": seconds(programs(c)[program], rounds)} for c in CASES]
    except Exception as error:
        print(f"NOT MEASURED: {program} {tile}: {type(error).__name__}: {str(error)[:120]}", flush=True)
        return []
    finally:
        operators.tile_of = stock


def compiled(pair: tuple[str, operators.Tile]) -> None:
    """Compile `pair` into Triton's cache."""
    measure(*pair, rounds=1)


def main() -> None:
    pairs = [*itertools.product(PROGRAMS, TILES)]
    with ProcessPoolExecutor(14, get_context("spawn")) as pool:
        list(pool.map(compiled, pairs))
    rows = [row for pair in pairs for row in measure(*pair)]
    append(rows, "triton_tiles")
    for case, program in itertools.product(CASES, PROGRAMS):
        best = sorted(
            (r for r in rows if (r["case"], r["program"]) == (case, program)), key=lambda r: r["seconds"]
        )
        for row in best[:4]:
            print(case, program, *(row[f] for f in operators.Tile._fields), f"{1e6 * row['seconds']:.0f} us")


if __name__ == "__main__":
    torch.cuda.is_available() or sys.exit("no CUDA device: NOT MEASURED HERE")
    main()
