"""Train loaders over a stream of few documents, without a network, and what a checkpoint holds of them."""

import torch
from torch.utils.data import get_worker_info
from words import Tagged, texts

from cadenza.data import MaskedLMCollator, TextConfig, TokenizedStream
from cadenza.data.loading import data_loader
from cadenza.data.text.datasets.packing import PackedStream
from cadenza.data.text.datasets.window_streams import WindowedStream
from cadenza.data.text.datasets.windows import CausalLMCollator
from cadenza.data.text.rows import Texts

KINDS = ("masked", "packed", "causal")
LENGTH, BATCH = 16, 3


class Counting(Tagged):
    """Notes the texts that it tokenizes."""

    def __init__(self):
        self.seen = []

    def __call__(self, given, **options):
        self.seen += [] if isinstance(given, str) else given
        return super().__call__(given, **options)


class Rows:
    """Rows of a stream that is shuffled in each pass and divided among workers, unevenly."""

    def __init__(self, count):
        # Without a token, of one row and of several.
        self.texts = [text if n % 5 else "" for n, text in enumerate(texts(count, seed=count))]
        self.epoch = 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __iter__(self):
        worker = get_worker_info()
        start = 7 * self.epoch
        rows = [{"text": text} for text in self.texts[start:] + self.texts[:start]]
        if worker is not None:
            first = len(rows) * worker.id // (2 * worker.num_workers)
            last = worker.id == worker.num_workers - 1
            rows = rows[first : None if last else len(rows) * (worker.id + 1) // (2 * worker.num_workers)]
        yield from rows


def train_loader(kind, workers=0, count=30, batch=BATCH, length=LENGTH, tokenizer=None, rows=None):
    """Batches of so many documents; some give no row, some several, and causal ones come three times."""
    tokenizer = tokenizer or Counting()
    upsampled = {"upsample_from": 60, "upsample_times": 3}
    cfg = TextConfig(max_seq_len=length, num_workers=workers, domain_tag="t", **upsampled)
    documents, collate = Texts(rows or Rows(count), cfg), MaskedLMCollator(tokenizer, 0.3, length, 0)
    if kind == "causal":
        stream, collate = WindowedStream(documents, tokenizer, cfg, False), CausalLMCollator(tokenizer, True)
    else:
        stream = (PackedStream if kind == "packed" else TokenizedStream)(documents, tokenizer, length, True)
    return data_loader(cfg, stream, None, collate, True, batch, 0)


def state_after(loader, batches, passes=0):
    """What Composer saves so many batches into a pass."""
    for _ in range(passes):
        list(loader)
    given = iter(loader)
    for _ in range(batches):
        next(given)
    return loader.dataset.state_dict(batches * BATCH, True)


def same(one, other):
    return len(one) == len(other) and all(
        a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
        for a, b in zip(one, other, strict=True)
    )
