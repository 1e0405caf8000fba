"""BERT and MosaicBERT on a GPU in bf16: real tokens/s, model FLOPs utilization and memory, by technique.

First the limits of the device, then a training step of ModernBERT at 1,024 columns, and of BERT-base and
-large at 128, 512 and 2,048 columns with 0 and 50 % padding. The variants are stock Hugging Face, each
technique on top of those before it, `flash_attention` on each kernel that runs here, and the stock model and
the last with compiled layers. MFU is the rate of the operations that the loss needs over the device's bf16
peak (H100 and H200: 989 TFLOP/s); padding needs none, and the head only those of labelled rows. A variant
that fails, or would start after --minutes, is printed as NOT MEASURED.
"""

import gc
import time
from functools import partial
from itertools import islice
from typing import Any

import torch
from gpu.cases import COLUMNS, Setting, batches, models
from gpu.ceilings import ceilings, summary
from gpu.models import needed
from harness import Missed, Row, Variant, compare, gpu_options, parser, record, table
from workloads import Batch, step

PEAK = {"H100": 989e12, "H200": 989e12, "A100": 312e12}


class Bench:
    """Measures the models of a shape against the stock one on its batches, until the time is over."""

    def __init__(self, setting: Setting, rounds: int, minutes: float, parts: list[str]) -> None:
        self.setting, self.rounds, self.parts = setting, 1 if setting.dry else rounds, parts
        self.end = time.monotonic() + 60 * minutes
        self.missed = Missed()

    def run(self, shape: str) -> None:
        """Measure the models in groups that memory can hold, each group together with the stock model."""
        variants, at_once = models(shape, self.setting), self.setting.shape(shape).together
        stock, first = next(variants), True
        variants = ((name, model) for name, model in variants if any(part in name for part in self.parts))
        while group := dict(islice(variants, at_once)):
            for case, data in batches(shape, self.setting).items():
                self._measure(case, data, dict([stock]) | group, first)
            first = False

    def _measure(self, case: str, data: Batch, group: dict[str, Any], first: bool) -> None:
        if time.monotonic() > self.end:
            self.missed.append(f"{case}: {', '.join(group)} (the time is over)")
            return
        variants = [Variant(name, step(m, data.inputs), needed(m, data)) for name, m in group.items()]
        ready = self.missed.ready(case, variants)
        compared = partial(compare, "gpu", case, ready, self.rounds, self.setting.dtype)
        if not ready or ready[0] is not variants[0]:
            self.missed.append(f"{case}: {', '.join(group)} (the stock model failed)")
        elif rows := self.missed.attempt(f"{case}: {', '.join(group)}", compared):
            self.keep(rows if first else rows[1:])
        del variants, ready, compared
        gc.collect()
        torch.cuda.empty_cache()

    def keep(self, rows: list[Row]) -> None:
        """Record and print `rows`; a dry run only prints them."""
        print(table(rows)) if self.setting.dry else record(rows, "gpu")
        for row in rows:
            if row.tokens_per_second:
                print(f"{row.variant:<28} MFU {mfu(row):.1%}", flush=True)


def mfu(row: Row) -> float:
    """The row's rate over this device's bf16 peak; NaN if the peak isn't known."""
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    return row.rate * 1e9 / next((peak for key, peak in PEAK.items() if key in name), float("nan"))


def main() -> None:
    options = parser(__doc__, rounds=3)
    options.add_argument("--shape", choices=[*COLUMNS], action="append", help="default: all")
    options.add_argument("--minutes", type=float, default=5, help="nothing is started later")
    options.add_argument("--variant", action="append", help="a part of the variants' names; default: all")
    chosen = gpu_options(options)
    torch._dynamo.config.fail_on_recompile_limit_hit = True  # else it would silently run uncompiled
    bench = Bench(Setting(chosen.dry_run), chosen.rounds, chosen.minutes, chosen.variant or [""])
    ceiling = ceilings(bench.rounds, bench.setting)
    bench.keep(ceiling)
    print(summary(ceiling))
    for shape in chosen.shape or COLUMNS:
        torch._dynamo.reset()  # the limit of recompilations holds for each shape
        bench.run(shape)
    bench.missed.print()
    if chosen.dry_run and bench.missed:
        raise SystemExit("not every variant runs")


if __name__ == "__main__":
    main()
