"""How much the tests notice: change the source a little, and see whether a test fails.

1. The suite runs once under coverage, so that a mutant gets just the tests that run its lines.
2. A sample is drawn by `--seed` from all mutants of all folders (`mutations.py`).
3. Each worker has a copy of the checkout. Heavy libraries are imported once; every mutant is a fork.
4. A mutant that survives the quickest 90 seconds of its tests meets all of them.
5. Survivors are printed, and the share that was noticed.
"""

import argparse
import contextlib
import gc
import json
import multiprocessing
import os
import queue
import random
import shutil
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from chosen_tests import ChosenTests
from mutations import Mutant, mutants

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / "build" / "mutants"
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["coverage"]["run"]
FOLDERS = tuple(name for name in SETTINGS["source"] if name != "train")
SLACK = 120.0  # seconds beyond four times what its tests take before a mutant counts as an endless loop


def main() -> int:
    chosen = parse()
    found = [m for file in sources(chosen.only) for m in mutants(ROOT, file)]
    sample = random.Random(chosen.seed).sample(found, min(chosen.count, len(found)))
    if chosen.list:
        print("\n".join(map(str, sorted(sample, key=str))))
        return 0
    tests = ChosenTests(ROOT, KEPT)
    print(f"{len(sample)} of {len(found)} mutants, seed {chosen.seed}", flush=True)
    survivors = surviving(sample, tests, chosen.jobs)
    report(sample, survivors, chosen.out)
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make mutants ARGS=", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--count", type=int, default=20, help="size of the sample")
    parser.add_argument("--seed", type=int, default=0, help="which sample")
    parser.add_argument(
        "--only", default="", help="of paths that begin so, such as recipe/ or data/text/masking.py"
    )
    parser.add_argument("--jobs", type=int, default=2, help="mutants at a time")
    parser.add_argument("--list", action="store_true", help="print the sample alone")
    parser.add_argument("--out", type=Path, help="a file for the survivors, as JSON")
    return parser.parse_args()


def sources(only: str) -> list[str]:
    """The files to change, as paths from the root."""
    listed = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True)
    ours = [file for file in listed.stdout.split() if file.startswith(FOLDERS) or file == "train.py"]
    return [file for file in ours if file.startswith(only)]


def surviving(sample: list[Mutant], tests: ChosenTests, jobs: int) -> list[Mutant]:
    """The mutants that no test notices."""
    preload()
    free: queue.Queue[Path] = queue.Queue()
    for number in range(jobs):
        free.put(checkout(KEPT / f"copy{number}"))
    if _fails(tests.within(tests.of("recipe/run.py", 1, 1)), tests, KEPT / "copy0"):
        raise SystemExit(f"tests fail without any mutant: see {KEPT / 'copy0/said.txt'}")

    def meet(mutant: Mutant) -> bool:
        copy = free.get()
        try:
            noticed = is_noticed(mutant, tests, copy)
        finally:
            free.put(copy)
        print(f"{'noticed ' if noticed else 'SURVIVED'}  {mutant}", flush=True)
        return noticed

    with ThreadPoolExecutor(jobs) as pool:
        met = list(pool.map(meet, sample))
    return [mutant for mutant, noticed in zip(sample, met, strict=True) if not noticed]


def preload() -> None:
    """Import what takes long and is not ours, for the forks to have."""
    os.environ["OMP_NUM_THREADS"] = "1"
    for name in (
        "torch",
        "transformers",
        "composer",
        "composer.trainer",
        "datasets",
        "pytest",
        "bitsandbytes",
    ):
        with contextlib.suppress(ImportError):
            __import__(name)
    gc.collect()
    gc.freeze()  # what a fork collects at its end is then its own


def checkout(folder: Path) -> Path:
    """A copy of the tracked files, and the folders under their import name beside it."""
    shutil.rmtree(folder, ignore_errors=True)
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True)
    for file in listed.stdout.decode().split("\n"):
        if (ROOT / file).is_file():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / file, folder / file)
    (folder / "link/cadenza").mkdir(parents=True)
    for name in FOLDERS:
        (folder / "link/cadenza" / name).symlink_to(folder / name)
    return folder


def is_noticed(mutant: Mutant, tests: ChosenTests, copy: Path) -> bool:
    """Whether a test fails, or never ends, with the mutant in the place of its original."""
    file = copy / mutant.path
    original = file.read_bytes()
    file.write_bytes(mutant.applied(original))
    try:
        every = tests.of(mutant.path, mutant.line, mutant.last)
        first = tests.within(every)
        rest = every[len(first) :]
        return any(_fails(part, tests, copy) for part in (first, rest) if part)
    finally:
        file.write_bytes(original)


def _fails(ids: list[str], tests: ChosenTests, copy: Path) -> bool:
    process = multiprocessing.get_context("fork").Process(target=_run, args=(ids, copy))
    process.start()
    process.join(4 * tests.time(ids) + SLACK)
    if process.is_alive():
        process.kill()
        process.join()
    if process.exitcode in (3, 5):  # pytest's own errors; 4 is a file that can't be imported
        raise SystemExit(f"pytest ended with {process.exitcode} in {copy}: see said.txt there")
    return process.exitcode != 0


def _run(ids: list[str], copy: Path) -> None:
    """In a fork: the tests of the copy, on the copy's sources."""
    os.setsid()
    os.chdir(copy)
    sys.dont_write_bytecode = True
    os.environ |= {"PYTHONPATH": str(copy / "link"), "PYTHONDONTWRITEBYTECODE": "1"}
    sys.path[:] = [str(copy / "link"), *(p for p in sys.path if p != str(Path(__file__).parent))]
    with open(copy / "said.txt", "w") as said:
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
        import pytest

        options = ["-x", "-q", "--assert=plain", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:cov"]
        code = pytest.main([*options, f"--basetemp={copy / 'tmp'}", *ids])
    os._exit(int(code))


def report(sample: list[Mutant], survivors: list[Mutant], out: Path | None) -> None:
    """Print what was found, and write the survivors to `out`."""
    noticed = len(sample) - len(survivors)
    print(f"\nnoticed {noticed} of {len(sample)}, {noticed / max(len(sample), 1):.0%}")
    for mutant in sorted(survivors, key=str):
        print(f"survived: {mutant}")
    if out is not None:
        out.write_text(json.dumps([str(mutant) for mutant in survivors], indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
