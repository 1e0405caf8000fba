"""Reading a whole source: with a progress bar, and with a tokenizer that uses all cores."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tqdm.auto import tqdm

from cadenza.data.text.encoding import Document

SHOWN = 20 << 20  # bytes of text from which a progress bar is shown
THREADS = "TOKENIZERS_PARALLELISM"


@contextmanager
def remaining(text: Any, done: int) -> Iterator[Iterator[Document]]:
    """The documents of `text` behind the first `done`, which are read, too; the bar counts bytes of files."""
    size = text.size
    options = {"unit": "B", "unit_scale": True, "disable": size < SHOWN, "mininterval": 0.5}
    with tqdm(total=size, desc="preparing", **options) as bar:

        def moved(count: int, position: int) -> None:
            bar.set_postfix_str(f"{count:,} documents", refresh=False)
            bar.update(max(position - bar.n, 0))

        def documents() -> Iterator[Document]:
            number = 0
            for number, document in enumerate(text, 1):
                if number % 100 == 0:
                    moved(number, text.position)
                if number > done:
                    yield document
            moved(number, size)

        yield documents()


@contextmanager
def all_cores() -> Iterator[None]:
    """Let tokenizers use threads, which the command line turns off for the sake of processes that load."""
    before = os.environ.get(THREADS)
    os.environ[THREADS] = "true"
    try:
        yield
    finally:
        if before is None:
            del os.environ[THREADS]
        else:
            os.environ[THREADS] = before
