"""The benchmark harness: variants alternate in one process, and what is quoted is the median of their ratios.

A shared machine gives other speeds from minute to minute; variants that take turns see the same minutes.
"""

import csv
import ctypes
import datetime
import importlib.metadata
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from tqdm.auto import tqdm

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Work:
    """What a step has to do: floating-point operations of its matrix products, and real tokens."""

    flops: float
    tokens: int


@dataclass
class Variant:
    """A way to do a step. `work` counts what it computes; `needed` what any way would have to."""

    name: str
    step: Callable[[], object]
    work: Work


@dataclass(frozen=True)
class Row:
    """A line of a result file. Times are seconds, memory MiB, rates GFLOP/s.

    `speedup` is the median over the rounds of the first variant's time over this one's, `low` and `high` its
    quartiles. `peak_mib` is what a step takes beyond what stands before it. `share` is the rate of the whole
    step's matrix products over that of one large product, measured right before and after each.
    """

    benchmark: str
    case: str
    variant: str
    seconds: float
    speedup: float
    low: float
    high: float
    tokens_per_second: float
    peak_mib: float
    gflop: float
    rate: float
    share: float


class Clock:
    """Seconds of a call: one CPU thread's own time, which other processes don't lengthen, or wall time."""

    def __init__(self) -> None:
        self.cuda = torch.cuda.is_available()
        alone = not self.cuda and torch.get_num_threads() == 1
        self.now = time.process_time if alone else time.perf_counter

    def __call__(self, step: Callable[[], object]) -> float:
        self._wait()
        start = self.now()
        step()
        self._wait()
        return self.now() - start

    def _wait(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()


def compare(
    benchmark: str, case: str, variants: list[Variant], rounds: int, dtype=torch.float32
) -> list[Row]:
    """Time `variants` in turns; the first is what the others are held against."""
    clock, times, tops = Clock(), {v.name: [] for v in variants}, {v.name: [] for v in variants}
    for variant in variants:
        clock(variant.step)
    peaks = {v.name: _peak_mib(v.step) for v in variants}
    multiply = _product(dtype)
    for turn in tqdm(range(rounds), desc=f"{benchmark} {case}", leave=False, disable=not sys.stderr.isatty()):
        for variant in variants if turn % 2 == 0 else variants[::-1]:
            before = clock(multiply)
            times[variant.name].append(clock(variant.step))
            tops[variant.name].append(2 * PRODUCT**3 / statistics.mean((before, clock(multiply))))
    first = times[variants[0].name]
    return [_row(benchmark, case, v, times[v.name], first, peaks[v.name], tops[v.name]) for v in variants]


PRODUCT = 1536 if not torch.cuda.is_available() else 8192


def _product(dtype: torch.dtype) -> Callable[[], object]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    a, b = (torch.randn(PRODUCT, PRODUCT, device=device, dtype=dtype) for _ in range(2))
    out = torch.empty_like(a)
    return lambda: torch.mm(a, b, out=out)


def _row(
    benchmark: str,
    case: str,
    v: Variant,
    times: list[float],
    first: list[float],
    peak: float,
    tops: list[float],
) -> Row:
    ratios = sorted(a / b for a, b in zip(first, times, strict=True))
    low, _, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    seconds = statistics.median(times)
    rate = v.work.flops / seconds
    share = statistics.median(v.work.flops / t / top for t, top in zip(times, tops, strict=True))
    return Row(
        *(benchmark, case, v.name, seconds, statistics.median(ratios), low, high),
        *(v.work.tokens / seconds, peak, v.work.flops / 1e9, rate / 1e9, share),
    )


def _peak_mib(step: Callable[[], object]) -> float:
    """What a step takes at most, beyond what is in use before it."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # what the allocator keeps from earlier steps would hide the peak
    Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
    before = _status("VmRSS")
    step()
    return _status("VmHWM") - before


def _status(key: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) / 1024


def machine() -> dict[str, str]:
    """What the numbers depend on."""
    if torch.cuda.is_available():
        device = torch.cuda.get_device_name()
    else:
        models = [x for x in Path("/proc/cpuinfo").read_text().splitlines() if x.startswith("model name")]
        device = f"{models[0].split(': ')[1] if models else platform.processor()}"
    return {
        "date": datetime.date.today().isoformat(),
        "device": device,
        "threads": str(torch.get_num_threads()),
        "torch": torch.__version__,
        "transformers": importlib.metadata.version("transformers"),
    }


def append(rows: list[dict[str, object]], name: str) -> Path:
    """Append `rows`, each with what its numbers depend on, to a result file; floats with four digits."""
    RESULTS.mkdir(exist_ok=True)
    path, common = RESULTS / f"{name}.csv", machine()
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, [*common, *rows[0]])
        if new:
            writer.writeheader()
        for row in rows:
            shown = {k: f"{v:.4g}" if isinstance(v, float) else v for k, v in row.items()}
            writer.writerow({**common, **shown})
    return path


def record(rows: list[Row], name: str) -> Path:
    """Append `rows` to a result file, and print them."""
    path = append([asdict(row) for row in rows], name)
    print(table(rows))
    return path


def table(rows: list[Row]) -> str:
    """Rows for people."""
    head = f"{'case':<30} {'variant':<26} {'seconds':>8} {'speed-up':>18} {'tokens/s':>9} "
    head += f"{'MiB':>6} {'share':>6}"
    lines = [
        f"{r.case:<30} {r.variant:<26} {r.seconds:8.3f} {r.speedup:6.2f} ({r.low:.2f}-{r.high:.2f}) "
        f"{r.tokens_per_second:9,.0f} {r.peak_mib:6,.0f} {r.share:6.0%}"
        for r in rows
    ]
    return "\n".join([head, *lines])
