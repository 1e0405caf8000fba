"""Which store of token ids is read fastest, row by row in any order?

The same rows of 5 to 126 tokens as Arrow, read as the views of `Rows` and through `datasets` (row by row, and
a batch at a time), and as MDS through mosaicml-streaming. Stores alternate; rates are tokens a second of CPU
time. Run it with OMP_NUM_THREADS=1 PYTHONPATH=benchmarks.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from datasets import Dataset
from harness import append, parser
from streaming import MDSWriter, StreamingDataset

from cadenza.data.text.prepared.rows import Rows, write

COUNT, READ, BATCH, FILES = 400_000, 20_000, 32, 4


def stores(folder: Path) -> dict[str, Callable[[list[int]], int]]:
    """By name, what reads rows and returns the number of their tokens."""
    rng = np.random.default_rng(0)
    rows = [rng.integers(5, 30_000, n).astype(np.int32) for n in rng.integers(5, 127, COUNT)]
    paths, each = [folder / f"{n}.arrow" for n in range(FILES)], COUNT // FILES
    for n, path in enumerate(paths):
        write(path, rows[n * each : (n + 1) * each], list(range(n * each, (n + 1) * each)))
    with MDSWriter(out=str(folder / "mds"), columns={"input_ids": "ndarray:int32"}) as writer:
        for row in rows:
            writer.write({"input_ids": row})
    views, shards = Rows(paths), StreamingDataset(local=str(folder / "mds"), batch_size=1)
    first = Dataset.from_file(str(paths[0])).with_format("numpy")
    return {
        "arrow, views": lambda order: sum(len(views[i]) for i in order),
        "arrow, datasets by row": lambda order: sum(len(first[i % each]["input_ids"]) for i in order),
        "arrow, datasets by batch": lambda order: sum(
            sum(map(len, first[[i % each for i in order[at : at + BATCH]]]["input_ids"]))
            for at in range(0, len(order), BATCH)
        ),
        "mds": lambda order: sum(len(shards[i]["input_ids"]) for i in order),
    }


def main() -> None:
    chosen = parser(__doc__, rounds=5).parse_args()
    rng = np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as folder:
        found = stores(Path(folder))
        rates: dict[str, list[float]] = {name: [] for name in found}
        for _ in range(chosen.rounds):
            order = rng.permutation(COUNT)[:READ].tolist()
            for name, read in found.items():
                start = time.process_time()
                tokens = read(order)
                rates[name].append(tokens / (time.process_time() - start))
    rows = [
        {"store": name, "tokens_per_core_second": round(statistics.median(each))}
        for name, each in rates.items()
    ]
    for row in rows:
        print(f"{row['store']:<26} {row['tokens_per_core_second'] / 1e6:8.1f} M tokens/s")
    print(append(rows, "stores"))


if __name__ == "__main__":
    main()
