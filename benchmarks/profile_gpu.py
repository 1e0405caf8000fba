"""Where a training step's time goes on a GPU: the kernels by time, and how long the device is idle.

The step is that of the last variant of bench_gpu whose name contains --variant, on its batch of --columns.
The table is printed, and all kernels are appended to results/gpu_profile.csv. --trace FILE writes a trace for
chrome://tracing and Perfetto.
"""

import statistics
from collections.abc import Callable
from typing import Any

import torch
from gpu.cases import COLUMNS, Setting, batches, models
from harness import Clock, append, gpu_options, parser
from torch.profiler import ProfilerActivity, profile
from workloads import step

STEPS = 3
MAX_SHOWN = 25  # kernels in the printed table


def chosen_model(shape: str, name: str, setting: Setting) -> tuple[str, Any]:
    """The last variant of `shape` whose name contains `name`; the others are freed."""
    found, seen = None, []
    for variant, model in models(shape, setting):
        seen.append(variant)
        found = (variant, model) if name in variant else found
    if found is None:
        raise SystemExit(f"no variant of {shape} has {name!r} in its name; there are: {'; '.join(seen)}")
    return found


def kernels(run: Callable[[], object], setting: Setting, trace: str | None) -> list[tuple[str, float, int]]:
    """(name, seconds, calls) of each kernel in a step, the longest first."""
    activity = ProfilerActivity.CPU if setting.dry else ProfilerActivity.CUDA
    with profile(activities=[activity]) as found:
        for _ in range(STEPS):
            run()
        if not setting.dry:
            torch.cuda.synchronize()
    if trace:
        found.export_chrome_trace(trace)
    field = "self_cpu_time_total" if setting.dry else "self_device_time_total"
    rows = [(e.key, getattr(e, field) / 1e6 / STEPS, e.count // STEPS) for e in found.key_averages()]
    return sorted((row for row in rows if row[1] > 0), key=lambda row: -row[1])


def table(rows: list[tuple[str, float, int]], seconds: float) -> str:
    """The longest kernels, the sum of the others, and the share of the step without any kernel, to print."""
    lines = [f"{'ms':>8} {'share':>6} {'calls':>6}  kernel"]
    busy, rest = sum(row[1] for row in rows), rows[MAX_SHOWN:]
    rest = [(f"{len(rest)} others", sum(row[1] for row in rest), sum(row[2] for row in rest))] if rest else []
    for name, time, calls in [*rows[:MAX_SHOWN], *rest]:
        lines.append(f"{1e3 * time:8.3f} {time / seconds:6.1%} {calls:6}  {name[:100]}")
    lines.append(f"a step takes {1e3 * seconds:.2f} ms; the device computes for {busy / seconds:.0%} of it")
    return "\n".join(lines)


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--shape", choices=[*COLUMNS], default="base")
    options.add_argument("--columns", type=int, default=512, help="one of those that bench_gpu measures")
    options.add_argument("--padding", choices=["0%", "50%"], default="50%")
    options.add_argument("--variant", default="+ flash_attention", help="a part of its name")
    options.add_argument("--trace", help="the file for a trace")
    chosen = gpu_options(options)
    setting = Setting(chosen.dry_run)
    columns = chosen.columns // 32 if chosen.dry_run else chosen.columns
    case = f"{chosen.shape}, {columns} columns, {chosen.padding} padding"
    found = batches(chosen.shape, setting)
    if case not in found:
        raise SystemExit(f"no batch {case!r}; there are: {'; '.join(found)}")
    variant, model = chosen_model(chosen.shape, chosen.variant, setting)
    run, clock = step(model, found[case].inputs), Clock()
    clock(run)
    seconds = statistics.median(clock(run) for _ in range(5))
    rows = kernels(run, setting, chosen.trace)
    print(f"{variant}: {case}\n{table(rows, seconds)}")
    if not chosen.dry_run:
        common = {"case": case, "variant": variant, "step_seconds": seconds}
        named = [{"kernel": name[:100], "seconds": time, "calls": calls} for name, time, calls in rows]
        print(f"recorded: {append([common | row for row in named], 'gpu_profile')}")


if __name__ == "__main__":
    main()
