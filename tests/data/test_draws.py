"""Loaders of every kind: draws differ by rank, worker, seed and pass, and are the same otherwise."""

import json
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from composer.utils import dist
from image_loaders import write_idx
from PIL import Image

from cadenza.data import (
    ImageConfig,
    TextConfig,
    TokenizedStream,
    build_causal_dataspec,
    build_dataspec,
    build_image_dataspec,
    hub,
)
from cadenza.data.text.datasets.packing import PackedStream
from cadenza.data.text.datasets.window_streams import WindowedStream
from cadenza.data.text.rows import Texts

DOCUMENTS, LENGTH = 48, 12
FINITE = ("masked", "packed", "windows", "arrays", "files")
STREAMS = ("masked stream", "packed stream", "windowed stream")
KINDS = FINITE + STREAMS
IMAGES = ("arrays", "files")
TEXTS = [" ".join(str(5 + 9 * n + i) for i in range(3 + n % 7)) for n in range(DOCUMENTS)]  # no word twice


class Numbers:
    """A tokenizer of whole numbers, each its own token."""

    cls_token_id, sep_token_id, pad_token_id, mask_token_id = 1, 2, 0, 3
    all_special_ids = (0, 1, 2, 3)
    unk_token_id = None

    def __call__(self, texts, **_):
        return {"input_ids": [[int(word) for word in text.split()] for text in texts]}

    def get_vocab(self):
        return {str(number): number for number in range(5 + 9 * DOCUMENTS)}


@pytest.fixture
def built(tmp_path, monkeypatch):
    """Builds a loader of a kind, as a rank of so many; ends its workers after the test."""
    import datasets

    files = [tmp_path / f"{part}.jsonl" for part in range(4)]
    for part, path in enumerate(files):
        rows = TEXTS[part * DOCUMENTS // 4 : (part + 1) * DOCUMENTS // 4]
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in rows))
    real, specs = datasets.load_dataset, []

    def load(name, subset, split, streaming):
        return real("json", data_files=[str(p) for p in files], split="train", streaming=streaming)

    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.setattr(hub, "reachable", lambda: True)

    def build(kind, train=True, seed=5, workers=0, rank=0, world=1):
        monkeypatch.setattr(dist, "get_world_size", lambda: world)
        monkeypatch.setattr(dist, "get_global_rank", lambda: rank)
        options = {"train": train, "batch_size": 2, "seed": seed}
        if kind in IMAGES:
            spec = build_image_dataspec(images(tmp_path / kind, kind, workers), **options)
        else:
            spec = text(kind, str(tmp_path / "*.jsonl"), workers, options)
        specs.append(spec)
        return spec

    yield build
    for spec in specs:
        spec.dataloader._iterator = None


def text(kind, pattern, workers, options):
    source = "some/set" if kind in STREAMS else pattern
    cfg = TextConfig(source=source, max_seq_len=LENGTH, num_workers=workers, shuffle_buffer=8)
    cfg.eval_source = None if kind in STREAMS else pattern
    if kind.startswith("window"):
        return build_causal_dataspec(cfg, Numbers(), **options)
    return build_dataspec(cfg, Numbers(), packed=kind.startswith("packed"), **options)


def images(folder, kind, workers):
    """Thirty images of noise; their classes are 0 to 29."""
    noise = np.random.RandomState(3).randint(0, 256, (30, 16, 16)).astype(np.uint8)
    if not folder.is_dir() and kind == "arrays":
        folder.mkdir()
        for part in ("train", "t10k"):
            write_idx(folder / f"{part}-images-idx3-ubyte.gz", noise)
            write_idx(folder / f"{part}-labels-idx1-ubyte.gz", np.arange(30, dtype=np.uint8))
    elif not folder.is_dir():
        for part in ("train", "val"):
            for number, image in enumerate(noise):
                (folder / part / f"{number:02}").mkdir(parents=True)
                Image.fromarray(image).save(folder / part / f"{number:02}" / "0.png")
    if kind == "arrays":
        return ImageConfig("fashion_mnist", str(folder), augmentation="crop_flip", num_workers=workers)
    sizes = {"image_size": 8, "eval_resize": 8}
    return ImageConfig(str(folder), augmentation="inception", num_workers=workers, **sizes)


def batches(spec, epoch=0):
    if hasattr(spec.dataloader.sampler, "set_epoch"):
        spec.dataloader.sampler.set_epoch(epoch)
    return [spec.batch_transforms(batch) for batch in spec.dataloader]


def items(found):
    """What is in the batches, whatever was made of it: words of documents, or classes of images."""
    if isinstance(found[0], dict):
        before = [torch.where(b["labels"] >= 0, b["labels"], b["input_ids"]) for b in found]
        return Counter(token for ids in before for token in ids.flatten().tolist() if token > 4)
    return Counter(label for _, labels in found for label in labels.tolist())


def numbers(found):
    """The draws of text, one a row."""
    return [draw for batch in found for draw in batch["draw"].tolist()]


def flat(found):
    return [list(batch.values()) if isinstance(batch, dict) else batch for batch in found]


def same(one, other):
    one, other = flat(one), flat(other)
    if len(one) != len(other):
        return False
    return all(
        a.shape == b.shape and a.equal(b)
        for x, y in zip(one, other, strict=True)
        for a, b in zip(x, y, strict=True)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_from_the_same(built, kind):
    for train in (True, False):
        assert same(batches(built(kind, train)), batches(built(kind, train)))
        assert same(
            batches(built(kind, train, rank=1, world=2)), batches(built(kind, train, rank=1, world=2))
        )


@pytest.mark.parametrize("kind", KINDS)
def test_ranks_share_nothing_in_training(built, kind):
    one, two = (batches(built(kind, rank=rank, world=2)) for rank in range(2))
    assert items(one)
    assert items(two)
    assert not items(one) & items(two)
    if kind not in IMAGES:
        assert not set(numbers(one)) & set(numbers(two))


@pytest.mark.parametrize("kind", KINDS)
def test_ranks_evaluate_everything_together(built, kind):
    """A row of a finite source comes twice where ranks would have unequally many."""
    one, two = (batches(built(kind, train=False, rank=rank, world=2)) for rank in range(2))
    whole = items(batches(built(kind, train=False)))
    assert items(one) | items(two) == whole
    if kind not in IMAGES:
        assert len(set(numbers(one)) & set(numbers(two))) <= (kind in FINITE)


@pytest.mark.parametrize("kind", FINITE)
@pytest.mark.parametrize("train", [True, False])
def test_workers_change_nothing_of_a_finite_source(built, kind, train):
    alone, shared = built(kind, train), built(kind, train, workers=2)
    for epoch in range(2):
        assert same(batches(alone, epoch), batches(shared, epoch))


@pytest.mark.parametrize("kind", STREAMS)
def test_workers_of_a_stream_share_nothing(built, kind):
    found = batches(built(kind, train=False, workers=2))
    assert set(items(found).values()) == {1}
    assert len(items(found)) == sum(len(text.split()) for text in TEXTS)
    assert len(set(numbers(found))) == len(numbers(found))


@pytest.mark.parametrize("kind", KINDS)
def test_another_seed_is_another_order(built, kind):
    one, two = (batches(built(kind, seed=seed)) for seed in (5, 6))
    assert [items([batch]) for batch in one] != [items([batch]) for batch in two]


@pytest.mark.parametrize("kind", KINDS)
def test_evaluation_has_one_order_and_masks_by_seed(built, kind):
    """The windows of a finite source alone are put together by the seed, too."""
    one, two = (batches(built(kind, train=False, seed=seed)) for seed in (5, 6))
    assert items(one) == items(two)
    if kind not in ("windows", "packed"):
        assert [items([batch]) for batch in one] == [items([batch]) for batch in two]
    assert same(one, two) == (kind in ("arrays", "files", "windowed stream"))


@pytest.mark.parametrize("kind", KINDS)
def test_every_pass_trains_anew(built, kind):
    spec = built(kind)
    one, two = batches(spec, 0), batches(spec, 1)
    assert [items([batch]) for batch in one] != [items([batch]) for batch in two]
    if kind not in IMAGES:
        assert not set(numbers(one)) & set(numbers(two))
    if kind in FINITE:
        later = 3 + len(spec.dataloader.dataset)
        first, again, anew = (look(kind, spec, draw) for draw in (3, 3, later))
        assert torch.equal(first, again)
        assert torch.equal(first, anew) == (kind == "windows")


def look(kind, spec, draw):
    """What the model sees of one draw."""
    row = spec.dataloader.dataset[draw]
    if kind in IMAGES:
        return row[0]
    return spec.batch_transforms(spec.dataloader.collate_fn([row]))["input_ids"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_evaluation_is_the_same(built, kind):
    spec = built(kind, train=False)
    assert same(batches(spec, 0), batches(spec, 1))


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("kind", [TokenizedStream, PackedStream, WindowedStream])
def test_draws_of_a_stream_are_numbered_by_pass_rank_and_worker(monkeypatch, kind, fixed):
    """Pass, then row, then rank, then worker; a stream of the Hub is told the pass."""
    epochs, options = [], (LENGTH, False)
    rows = Rows([{"text": text} for text in TEXTS], epochs)
    if kind is WindowedStream:
        options = (TextConfig(max_seq_len=LENGTH),)
    monkeypatch.setattr(dist, "get_world_size", lambda: 3)
    monkeypatch.setattr(dist, "get_global_rank", lambda: 2)
    for worker in (None, SimpleNamespace(num_workers=4, id=1)):
        monkeypatch.setattr(
            "cadenza.data.text.datasets.sequences.get_worker_info", lambda worker=worker: worker
        )
        stream = kind(Texts(rows, TextConfig()), Numbers(), *options, fixed=fixed)
        workers, index = (4, 1) if worker else (1, 0)
        for pass_ in (0, 0, 0) if fixed else (0, 1, 2):
            start = pass_ * 2**40 + 2 * workers + index
            drawn = [row["draw"] for row in stream]
            assert len(drawn) > 5
            assert drawn == [start + 3 * workers * count for count in range(len(drawn))]
            assert epochs.pop() == pass_


class Rows(list):
    """Rows of a stream that notes which pass it is told."""

    def __init__(self, rows, epochs):
        super().__init__(rows)
        self.set_epoch = epochs.append


def test_streams_change_from_pass_to_pass_unless_told_otherwise():
    for stream in (TokenizedStream, PackedStream):
        made = stream(TEXTS, Numbers(), LENGTH, False)
        assert next(iter(made))["draw"] != next(iter(made))["draw"]
