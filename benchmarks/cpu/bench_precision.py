"""How much faster is amp_bf16 than fp32 on this CPU, and does it learn the same?

`make train`'s recipe. The speed is that of a run whose batches alternate between both precisions: the median
ratio of neighbouring batches, in CPU time. The losses are those of a run in each precision from each seed.
Run it with OMP_NUM_THREADS=1 PYTHONPATH=benchmarks.
"""

import statistics
import tempfile
import time
from pathlib import Path

from composer import Callback
from harness import append, parser
from torch.profiler import ProfilerActivity, profile

from cadenza.recipe import load
from cadenza.recipe.cpu import rows
from cadenza.recipe.cpu.autocast import Autocast
from cadenza.recipe.cpu.memory import keep_freed_memory
from cadenza.recipe.cpu.precision import speed
from cadenza.recipe.run import built_of, task_of
from cadenza.recipe.trainer import trainer_settings
from cadenza.surgery.retype import mix, unmix

YAMLS = Path(__file__).parents[2] / "yamls"
RECIPE = [str(YAMLS / "mosaicbert.yaml"), str(YAMLS / "scale" / "cpu.yaml")]
QUIET = ["train.save_interval=null", "train.progress_bar=false"]
PRECISIONS = ("fp32", "amp_bf16")


class BatchTimes(Callback):
    """The CPU seconds of each batch."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def batch_start(self, state, logger) -> None:
        self.start = time.process_time()

    def batch_end(self, state, logger) -> None:
        self.seconds.append(time.process_time() - self.start)


class Alternating(BatchTimes):
    """Computes every second batch in amp_bf16; begins with batch 1 in fp32."""

    def batch_start(self, state, logger) -> None:
        if state.timestamp.batch.value % 2:
            mix(state.model, Autocast)
        super().batch_start(state, logger)

    def batch_end(self, state, logger) -> None:
        super().batch_end(state, logger)
        unmix(state.model, Autocast)


class Profile(BatchTimes):
    """Prints the operations of 20 batches by their own time."""

    def batch_start(self, state, logger) -> None:
        super().batch_start(state, logger)
        if state.timestamp.batch == 40:
            self.profile = profile(activities=[ProfilerActivity.CPU])
            self.profile.start()

    def batch_end(self, state, logger) -> None:
        super().batch_end(state, logger)
        if state.timestamp.batch == 60:
            self.profile.stop()
            print(self.profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=12))


def speed_up(batches: int, pairs: list[str], folder: str) -> dict[str, object]:
    """The figures of a run whose batches alternate; the first ten pairs warm up."""
    times = Alternating()
    run(["train.precision=fp32", *pairs, f"train.max_duration={batches}ba"], folder, times)
    wide, narrow = times.seconds[20::2], times.seconds[21::2]
    ratios = [a / b for a, b in zip(wide, narrow, strict=False)]
    low, median, high = statistics.quantiles(ratios, n=4)
    return {
        **{"products": speed(), "batches": batches},
        **{"fp32_ms": 1000 * statistics.median(wide), "amp_bf16_ms": 1000 * statistics.median(narrow)},
        **{"speedup": median, "low": low, "high": high},
    }


def trained(precision: str, seed: int, pairs: list[str], folder: str) -> dict[str, object]:
    """The figures of one run."""
    times = BatchTimes()
    found = run([f"train.precision={precision}", f"seed={seed}", *pairs], folder, times)
    return {
        "seed": seed,
        "precision": precision,
        "batches": len(times.seconds),
        "cpu_seconds": sum(times.seconds),
        "ms_per_batch": 1000 * statistics.median(times.seconds),
        "train_loss": found["train"]["loss"],
        "eval_loss": found["eval"]["loss"],
        "unigram_entropy": found["eval"]["unigram_entropy"],
    }


def run(pairs: list[str], folder: str, times: BatchTimes) -> dict[str, dict[str, float]]:
    """Train and evaluate; the results as in `run.json`."""
    recipe = load(RECIPE, [*QUIET, *pairs, f"train.run_folder={folder}"])
    settings = trainer_settings(recipe)
    settings["callbacks"].append(times)
    task = task_of(recipe)
    built = built_of(task, settings)
    built.trainer.fit()
    found = task.results(built.trainer, built.evaluation)
    built.trainer.close()
    return found


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--alternate", type=int, default=220, help="batches of the run that alternates")
    options.add_argument("--seed", type=int, action="append", default=[], help="of further runs")
    options.add_argument("--precision", choices=PRECISIONS, action="append", help="of further runs")
    help = "linear layers' rows are rounded up to a multiple of it; 1: they are left as they are"
    options.add_argument("--multiple", type=int, default=rows.MULTIPLE, help=help)
    help = "print the shares of float32 batches 40 to 60 by operation, and measure nothing else"
    options.add_argument("--profile", action="store_true", help=help)
    options.add_argument("pairs", nargs="*", help="key=value pairs for the recipe")
    chosen = options.parse_args()
    keep_freed_memory()
    rows.MULTIPLE = chosen.multiple
    with tempfile.TemporaryDirectory() as folder:
        if chosen.profile:
            run(["train.precision=fp32", *chosen.pairs, "train.max_duration=62ba"], folder, Profile())
            return
        if chosen.alternate:
            report([speed_up(chosen.alternate, chosen.pairs, folder)], "precision")
        for seed in chosen.seed:
            for precision in chosen.precision or PRECISIONS:
                report([trained(precision, seed, chosen.pairs, folder)], "precision_losses")


def report(rows: list[dict[str, object]], name: str) -> None:
    """Append `rows` to a result file and print them."""
    print(*rows, append(rows, name), flush=True)


if __name__ == "__main__":
    main()
