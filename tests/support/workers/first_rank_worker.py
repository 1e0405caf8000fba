"""What each process of the first rank's test runs; a module of its own, which a spawned process finds."""

import os

from ddp_worker import WORLD, join

from cadenza.data import DataError, TokenizerConfig, build_tokenizer


class Unsendable(Exception):
    """An error that can't be pickled."""

    def __init__(self, one, other):
        super().__init__(f"{one} and {other}")


def raising(error):
    def texts():
        raise error
        yield

    return texts


# Each reads text that no other kind of error comes from.
TEXTS = {
    "text": lambda: [f"word{n} and more words" for n in range(60)],
    "data error": raising(DataError("data.source: no such file")),
    "other error": raising(OSError(28, "No space left on device")),
    "unsendable": raising(Unsendable("one", "other")),
}


def worker(rank, meeting, jobs, found):
    """Append (rank, job, how often it read the text, what it got) for each of `jobs`."""
    os.environ.update(
        RANK=str(rank), WORLD_SIZE=str(WORLD), LOCAL_RANK=str(rank), LOCAL_WORLD_SIZE=str(WORLD)
    )
    join(rank, meeting)
    for name in jobs:
        reads = []

        def texts(name=name, reads=reads):
            reads.append(name)
            return TEXTS[name]()

        cfg = TokenizerConfig(vocab_size=300, cache_dir=f"{meeting}-{rank}")
        try:
            got = build_tokenizer(cfg, texts).get_vocab()
        except Exception as error:
            got = type(error).__name__, str(error)
        found.append((rank, name, len(reads), got))
