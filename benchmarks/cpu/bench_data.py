"""What does a corpus cost: to prepare, to start on, to read, to resume, in memory?

A corpus of made-up words (Zipf's law, documents of web-like lengths) is written as JSON lines. Each case runs
in a process of its own and is measured behind the imports. Rates are for a second of CPU time of all threads
together, so that they are rates of one core; starts and resumes are wall time. Packed rows are made of what
`truncate` has prepared. Run it with OMP_NUM_THREADS=1 PYTHONPATH=benchmarks; 1.6 GB of text take an hour.
"""

import json
import random
import statistics
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import numpy as np
from harness import append, parser

from cadenza.data import TextConfig, build_causal_dataspec, build_dataspec, count_tokens, train_wordpiece

WORDS, LETTERS, MEDIAN = 40_000, "etaoinshrdlucmfwypvbgkjqxz", 180
KINDS = {
    "truncate": {"max_seq_len": 128},
    "split": {"max_seq_len": 128, "long_documents": "split"},
    "packed": {"max_seq_len": 128},
    "windows": {"max_seq_len": 1024},
}
BATCH, BATCHES = 128, 300


def write(path: Path, size: float) -> None:
    """Write about `size` MB of documents."""
    draw, rng = random.Random(1), np.random.default_rng(1)
    words = ["".join(draw.choices(LETTERS, k=max(1, round(draw.gauss(6, 2.5))))) for _ in range(WORDS)]
    written = 0
    with path.open("w") as file:
        while written < size * 1e6:
            for length in rng.lognormal(np.log(MEDIAN), 1, 1000).astype(int) + 1:
                text = " ".join(words[n] for n in rng.zipf(1.2, length) % WORDS)
                written += file.write(json.dumps({"text": text}) + "\n")


def spec(kind: str, path: Path, folder: Path):
    """The training data of a kind of rows, with a tokenizer that is made anew (it takes the same text)."""
    from transformers import PreTrainedTokenizerFast

    cfg = TextConfig(source=str(path), cache_dir=str(folder), eval_fraction=0.01, **KINDS[kind])
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder / "tokenizer")
    options = {"train": True, "batch_size": BATCH, "seed": 1}
    if kind == "windows":
        return build_causal_dataspec(cfg, tokenizer, **options)
    return build_dataspec(cfg, tokenizer, **options, packed=kind == "packed")


def memory() -> tuple[float, float]:
    """MiB of memory that this process has taken, and with the pages of files that it has looked at."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    sizes = {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines}
    return sizes["Anonymous"], sizes["Rss"]


def one(kind: str, path: Path, folder: Path, resume: int) -> dict[str, float]:
    """Start, read batches and look at the memory, in this process."""
    wall, cpu = time.perf_counter(), time.process_time()
    made = spec(kind, path, folder)
    loader = made.dataloader
    epoch, batch = divmod(resume, max(len(loader), 1))
    loader.sampler.set_epoch(epoch)
    loader.dataset.load_state_dict({"taken": batch * BATCH, "length": len(loader.dataset)})
    batches = iter(loader)
    made.batch_transforms(next(batches))
    start, prepared = time.perf_counter() - wall, time.process_time() - cpu
    cpu = time.process_time()
    tokens = sum(count_tokens(made.batch_transforms(b))["total"] for b in islice(batches, BATCHES))
    rate = tokens / (time.process_time() - cpu)
    taken, resident = memory()
    rows = len(loader.dataset)
    return {
        "start": start,
        "cpu": prepared,
        "rate": rate,
        "taken": taken,
        "resident": resident,
        "rows": rows,
    }


def measured(kind: str, path: Path, folder: Path, resume: int = 0) -> dict[str, float]:
    """The same in a process of its own."""
    command = [sys.executable, __file__, "--one", kind, str(path), str(folder), str(resume)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def rows_of(kind: str, size: float, path: Path, folder: Path, rounds: int) -> list[dict[str, object]]:
    """Cold once, then warm in rounds, then resumed."""
    megabytes = path.stat().st_size / 1e6
    cold = measured(kind, path, folder)
    warm = [measured(kind, path, folder) for _ in range(rounds)]
    found = {name: statistics.median(each[name] for each in warm) for name in cold}
    cpu = cold["cpu"] - found["cpu"]
    prepared = megabytes / cpu if cpu > 1 else None  # None: the row ids were there
    row: dict[str, object] = {
        "kind": kind,
        "corpus_mb": round(megabytes),
        "rows": int(found["rows"]),
        "prepare_mb_per_core_second": prepared,
        "first_batch_cold_s": cold["start"],
        "first_batch_again_s": found["start"],
        "tokens_per_core_second": round(found["rate"]),
        "taken_mib": round(found["taken"]),
        "resident_mib": round(found["resident"]),
    }
    for batch in (100, 10_000, 100_000):
        row[f"resume_at_{batch}_s"] = measured(kind, path, folder, batch)["start"]
    print(
        "  ".join(
            f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in row.items()
        )
    )
    return [row]


def main() -> None:
    chosen = parser(__doc__, rounds=3)
    chosen.add_argument("--sizes", type=float, nargs="+", default=[100, 500, 1000], help="MB of the corpora")
    chosen.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS)
    chosen.add_argument(
        "--folder", type=Path, default=Path("/tmp/bench_data"), help="for corpora and token ids"
    )
    options = chosen.parse_args()
    rows = []
    for size in options.sizes:
        folder = options.folder / f"{size:g}"
        path = folder / "text.jsonl"
        folder.mkdir(parents=True, exist_ok=True)
        if not path.is_file():
            write(path, size)
            with path.open() as file:
                texts = [json.loads(line)["text"] for line in islice(file, 20_000)]
            train_wordpiece(texts, 30_000).save_pretrained(folder / "tokenizer")
        for kind in options.kinds:
            rows += rows_of(kind, size, path, folder, options.rounds)
    print(append(rows, "data"))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        kind, path, folder, resume = sys.argv[2:]
        print(json.dumps(one(kind, Path(path), Path(folder), int(resume))))
    else:
        main()
