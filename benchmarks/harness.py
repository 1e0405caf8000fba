"""The benchmark harness: variants alternate in one process, and the result is the median of their ratios.

The speed of a shared machine changes from minute to minute; alternating variants see the same changes.
"""

import argparse
import datetime
import importlib.metadata
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from cadenza.studies.memory import peak_bytes
from cadenza.studies.running import cells

RESULTS = Path(__file__).parent / "results"
CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
PRODUCT = 8192 if CUDA else 1536  # rows and columns of the product that `share` compares with


@dataclass(frozen=True)
class Work:
    """The work of a step: floating-point operations of its matrix products, and tokens without padding."""

    flops: float
    tokens: int


@dataclass
class Variant:
    """A way to compute a step. `work` counts the operations that this way computes."""

    name: str
    step: Callable[[], object]
    work: Work


@dataclass(frozen=True)
class Row:
    """A line of a result file. Times are in seconds, memory in MiB, rates in GFLOP/s.

    `speedup` is the median over rounds of the first variant's time divided by this one's; `low` and `high`
    are its quartiles. `peak_mib` is the peak of a step's additional memory. `share` is `rate` divided by the
    rate of one large matrix product, which is measured right before and after the step.
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
    """The seconds of a call: wall time, or CPU time if torch uses one CPU thread."""

    def __init__(self) -> None:
        one_thread = not CUDA and torch.get_num_threads() == 1
        self.now = time.process_time if one_thread else time.perf_counter

    def __call__(self, step: Callable[[], object]) -> float:
        self._wait()
        start = self.now()
        step()
        self._wait()
        return self.now() - start

    def _wait(self) -> None:
        if CUDA:
            torch.cuda.synchronize()


def compare(
    benchmark: str, case: str, variants: list[Variant], rounds: int, dtype=torch.float32
) -> list[Row]:
    """A row for each variant; the variants alternate, and `speedup` is relative to the first one."""
    clock, times, limits = Clock(), {v.name: [] for v in variants}, {v.name: [] for v in variants}
    for variant in variants:
        clock(variant.step)
    peaks = {v.name: _peak_mib(v.step) for v in variants}
    multiply = _product(dtype)
    for turn in tqdm(range(rounds), desc=f"{benchmark} {case}", leave=False, disable=not sys.stderr.isatty()):
        for variant in variants if turn % 2 == 0 else variants[::-1]:
            before = clock(multiply)
            times[variant.name].append(clock(variant.step))
            limits[variant.name].append(2 * PRODUCT**3 / statistics.mean((before, clock(multiply))))
    rows = []
    for v in variants:
        figures = _figures(v.work, times[variants[0].name], times[v.name], limits[v.name])
        rows.append(Row(benchmark, case, v.name, peak_mib=peaks[v.name], **figures))
    return rows


class Missed(list[str]):
    """What couldn't be measured, and why: a failure is a result of a benchmark and doesn't end it."""

    def attempt(self, what: str, call: Callable[[], Any]) -> Any:
        """The result of `call`, or None if it fails."""
        try:
            return call()
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            self.append(f"{what} ({type(error).__name__}: {reason})")
            return None

    def ready(self, case: str, variants: list[Variant]) -> list[Variant]:
        """Those of `variants` whose step has run once."""
        return [v for v in variants if self.attempt(f"{case}: {v.name}", lambda v=v: (v.step(), True))]

    def print(self) -> None:
        for line in self:
            print(f"NOT MEASURED: {line}", flush=True)


def _product(dtype: torch.dtype) -> Callable[[], object]:
    a, b = (torch.randn(PRODUCT, PRODUCT, device=DEVICE, dtype=dtype) for _ in range(2))
    out = torch.empty_like(a)
    return lambda: torch.mm(a, b, out=out)


def _figures(work: Work, first: list[float], times: list[float], limits: list[float]) -> dict[str, float]:
    ratios = sorted(a / b for a, b in zip(first, times, strict=True))
    low, _, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    seconds = statistics.median(times)
    return {
        **{"seconds": seconds, "speedup": statistics.median(ratios), "low": low, "high": high},
        **{"tokens_per_second": work.tokens / seconds, "gflop": work.flops / 1e9},
        "rate": work.flops / seconds / 1e9,
        "share": statistics.median(work.flops / t / limit for t, limit in zip(times, limits, strict=True)),
    }


def _peak_mib(step: Callable[[], object]) -> float:
    found: list[int] = []
    with peak_bytes(torch.device(DEVICE), found):
        step()
    return found[0] / 2**20


def machine() -> dict[str, str]:
    """The date, and the device and the versions that the numbers depend on."""
    if CUDA:
        device = torch.cuda.get_device_name()
    else:
        models = [x for x in Path("/proc/cpuinfo").read_text().splitlines() if x.startswith("model name")]
        device = models[0].split(": ")[1] if models else platform.processor()
    return {
        "date": datetime.date.today().isoformat(),
        "device": device,
        "threads": str(torch.get_num_threads()),
        "torch": torch.__version__,
        "transformers": importlib.metadata.version("transformers"),
    }


def append(rows: list[dict[str, object]], name: str) -> Path:
    """Append `rows`, each with `machine()`, to a result file; floats have four digits."""
    path, common = RESULTS / f"{name}.csv", machine()
    for row in rows:
        cells.append(path, common | {k: f"{v:.4g}" if isinstance(v, float) else v for k, v in row.items()})
    return path


def record(rows: list[Row], name: str) -> Path:
    """Append `rows` to a result file and print them."""
    path = append([asdict(row) for row in rows], name)
    print(table(rows))
    return path


def table(rows: list[Row]) -> str:
    """The rows as a table to print."""
    columns = f"{'seconds':>8} {'speed-up':>18} {'tokens/s':>9} {'MiB':>6} {'share':>6}"
    head = f"{'case':<30} {'variant':<26} {columns}"
    lines = [
        f"{r.case:<30} {r.variant:<26} {r.seconds:8.3f} {r.speedup:6.2f} ({r.low:.2f}-{r.high:.2f}) "
        f"{r.tokens_per_second:9,.0f} {r.peak_mib:6,.0f} {r.share:6.0%}"
        for r in rows
    ]
    return "\n".join([head, *lines])


def parser(description: str | None, rounds: int | None = None) -> argparse.ArgumentParser:
    """A command line; if `rounds` is given, with the option `--rounds`."""
    raw = argparse.RawDescriptionHelpFormatter
    made = argparse.ArgumentParser(description=description, formatter_class=raw)
    if rounds:
        made.add_argument("--rounds", type=int, default=rounds, help="timed steps of each variant")
    return made


def gpu_options(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The parsed options of a script that needs a CUDA device, unless it is called with `--dry-run`."""
    parser.add_argument("--dry-run", action="store_true", help="tiny models on a CPU; records nothing")
    chosen = parser.parse_args()
    if not (chosen.dry_run or CUDA):
        raise SystemExit(f"{parser.prog} needs a CUDA device: NOT MEASURED HERE")
    return chosen
