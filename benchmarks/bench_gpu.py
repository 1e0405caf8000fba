"""BERT and MosaicBERT on a GPU in bf16: real tokens/s, model FLOPs utilization and memory, by technique.

First what the card does at most. Then a training step of ModernBERT at 1,024 columns, and of BERT-base and
-large at 128, 512 and 2,048, without padding and with half of it: stock Hugging Face, each technique on top
of those before it, `flash_attention` on each kernel that runs here, and both ends with their layers
compiled. MFU is the share of the device's bf16 peak (H100 and H200: 989 TFLOP/s) that the operations make
that the loss needs: none on padding, and in the head those of labelled rows. What fails, or would begin
after --minutes, is printed as NOT MEASURED.
"""

import argparse
import gc
import time
from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import Any

import torch
from bert import Batch, step
from gpu_cases import COLUMNS, Setting, batches, models
from gpu_ceilings import ceilings, said
from gpu_models import needed
from harness import Row, Variant, compare, record, table

PEAK = {"H100": 989e12, "H200": 989e12, "A100": 312e12}


class Bench:
    """Models of a shape against the stock one on its batches, as long as there is time."""

    def __init__(self, setting: Setting, rounds: int, minutes: float) -> None:
        self.setting, self.rounds = setting, 1 if setting.dry else rounds
        self.end = time.monotonic() + 60 * minutes
        self.missed: list[str] = []

    def run(self, shape: str) -> None:
        """As many models at once as memory holds, stock among them."""
        ours, at_once = models(shape, self.setting), self.setting.shape(shape).together
        stock, first = next(ours), True
        while group := dict(islice(ours, at_once)):
            for case, data in batches(shape, self.setting).items():
                self._measure(case, data, dict([stock]) | group, first)
            first = False

    def _measure(self, case: str, data: Batch, group: dict[str, Any], first: bool) -> None:
        if time.monotonic() > self.end:
            self.missed.append(f"{case}: {', '.join(group)} (the time is over)")
            return
        found = [self._attempt(case, name, partial(_variant, name, m, data)) for name, m in group.items()]
        variants = [variant for variant in found if variant]
        compared = partial(compare, "gpu", case, variants, self.rounds, self.setting.dtype)
        if found[0] is None:
            self.missed.append(f"{case}: {', '.join(group)} (nothing to hold them against)")
        elif rows := self._attempt(case, ", ".join(group), compared):
            self.keep(rows if first else rows[1:])
        del found, variants, compared
        gc.collect()
        torch.cuda.empty_cache()

    def _attempt(self, case: str, what: str, call: Callable[[], Any]) -> Any:
        """What `call` gives; None where it fails, which is one of the findings."""
        try:
            return call()
        except Exception as error:
            why = " ".join(str(error).split())[:200]
            self.missed.append(f"{case}: {what} ({type(error).__name__}: {why})")
            return None

    def keep(self, rows: list[Row]) -> None:
        """Record and print; a dry run only prints."""
        print(table(rows)) if self.setting.dry else record(rows, "gpu")
        for row in rows:
            if row.tokens_per_second:
                print(f"{row.variant:<28} MFU {mfu(row):.1%}", flush=True)


def _variant(name: str, model: Any, data: Batch) -> Variant:
    """A training step, after a first one."""
    variant = Variant(name, step(model, data.inputs), needed(model, data))
    variant.step()
    return variant


def mfu(row: Row) -> float:
    """Of this device's bf16 peak; NaN where that isn't known."""
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    return row.rate * 1e9 / next((peak for key, peak in PEAK.items() if key in name), float("nan"))


def options() -> argparse.Namespace:
    """The command line."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--rounds", type=int, default=3, help="turns of each variant")
    parser.add_argument("--shape", choices=[*COLUMNS], action="append", help="default: all")
    parser.add_argument("--minutes", type=float, default=5, help="nothing is begun later")
    parser.add_argument("--dry-run", action="store_true", help="tiny models on a CPU; nothing is recorded")
    return parser.parse_args()


def main() -> None:
    chosen = options()
    if not (chosen.dry_run or torch.cuda.is_available()):
        raise SystemExit("bench_gpu needs a CUDA device: NOT MEASURED HERE")
    torch._dynamo.config.fail_on_recompile_limit_hit = True  # and not run uncompiled without a word
    bench = Bench(Setting(chosen.dry_run), chosen.rounds, chosen.minutes)
    ceiling = ceilings(bench.rounds, bench.setting)
    bench.keep(ceiling)
    print(said(ceiling))
    for shape in chosen.shape or COLUMNS:
        torch._dynamo.reset()  # so that no shape uses up the recompilations of another
        bench.run(shape)
    for line in bench.missed:
        print(f"NOT MEASURED: {line}")
    if chosen.dry_run and bench.missed:
        raise SystemExit("not every variant runs")


if __name__ == "__main__":
    main()
