"""Loaders of text: every option arrives, sizes and counts by hand."""

import json
import math
from types import SimpleNamespace

import pytest
import torch
from composer.utils import dist
from words import Tagged

from cadenza.data import (
    DataError,
    EpochSampler,
    TextConfig,
    build_causal_dataspec,
    build_dataspec,
    count_tokens,
    unigram_entropy,
)
from cadenza.data.text import sources
from cadenza.data.text.datasets.packing import PackedStream
from cadenza.data.text.datasets.sequences import TokenizedStream
from cadenza.data.text.rows import Texts

WORDS = Tagged()
BUILD = {"masked": build_dataspec, "causal": build_causal_dataspec}


@pytest.fixture
def corpus(tmp_path):
    """A file of documents of 6, 7, 8, ... 25 words, and the values that read it to train and to evaluate."""
    path = tmp_path / "text.jsonl"
    texts = [" ".join(["w"] * n) for n in range(6, 26)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return {"source": str(path), "eval_source": str(path)}


@pytest.fixture
def stream(monkeypatch):
    """A stream of such documents in the place of a Hub set."""
    texts = Texts([{"text": " ".join(["w"] * n)} for n in range(6, 26)], TextConfig())
    monkeypatch.setattr(sources, "hub_stream", lambda cfg, train, seed: texts)
    return {"source": "some/set"}


def build(values, kind="masked", train=True, batch_size=3, seed=5, **more):
    return BUILD[kind](TextConfig(**values), WORDS, train=train, batch_size=batch_size, seed=seed, **more)


@pytest.mark.parametrize("train", [True, False])
def test_what_masks_are_drawn_by(corpus, train):
    values = {**corpus, "mlm_probability": 0.4, "eval_mlm_probability": 0.2, "max_seq_len": 20}
    spec = build(values, train=train, seed=9)
    collator = spec.dataloader.collate_fn
    assert (collator.mlm_probability, collator.seed) == (0.4 if train else 0.2, 9)
    raw = next(iter(spec.dataloader))
    assert set(raw) == {"input_ids", "attention_mask", "draw"}, "not packed, unless asked for"
    masked = spec.batch_transforms(raw)
    assert torch.equal(masked["labels"], collator.mask(raw)["labels"])


@pytest.mark.parametrize("kind", ["masked", "packed", "causal"])
@pytest.mark.parametrize("size", [9, 30])
def test_no_row_is_longer_than_max_seq_len(corpus, stream, kind, size):
    more = {"packed": True} if kind == "packed" else {}
    for source in (corpus, stream):
        values = {**source, "max_seq_len": size, "long_documents": "split"}
        spec = build(values, kind.replace("packed", "masked"), batch_size=1, **more)
        widths = [batch["attention_mask"].sum().item() for batch in spec.dataloader]
        # the longest sequence, of 25 words between [CLS] and [SEP], or a row of several
        assert max(widths) == (27 if (kind, size) == ("masked", 30) else size)


@pytest.mark.parametrize(("long_documents", "count"), [("truncate", 20), ("split", 7 + 2 * 12 + 3)])
def test_long_documents_are_cut_or_split(corpus, stream, long_documents, count):
    """Those of 6 to 12, of 13 to 24 and of 25 words, at 12 words a sequence: one, two and three sequences."""
    for source in (corpus, stream):
        values = {**source, "max_seq_len": 14, "long_documents": long_documents}
        assert sum(len(batch["draw"]) for batch in build(values, train=False).dataloader) == count


@pytest.mark.parametrize("kind", ["masked", "causal"])
@pytest.mark.parametrize("workers", [0, 1])
def test_what_the_loader_is_told(corpus, stream, monkeypatch, kind, workers):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for source in (corpus, stream):
        for train in (True, False):
            values = {**source, "num_workers": workers, "max_seq_len": 27}
            loader = build(values, kind, train, batch_size=3).dataloader
            told = (loader.batch_size, loader.num_workers, loader.persistent_workers, loader.pin_memory)
            assert told == (3, workers, workers > 0, True)
            assert loader.drop_last == train


@pytest.mark.parametrize("kind", ["masked", "causal"])
def test_evaluation_takes_the_last_batch_that_is_not_full(corpus, kind):
    spec = build({**corpus, "max_seq_len": 27}, kind, train=False, batch_size=3)
    rows = len(spec.dataloader.dataset)
    assert rows % 3
    assert sum(len(batch["draw"]) for batch in spec.dataloader) == rows


@pytest.mark.parametrize(("packed", "expected"), [(False, TokenizedStream), (True, PackedStream)])
def test_streams_are_packed_when_asked(stream, packed, expected):
    assert type(build(stream, packed=packed).dataloader.dataset.stream) is expected


@pytest.mark.parametrize("kind", ["masked", "causal"])
@pytest.mark.parametrize("world", [1, 2])
def test_a_batch_of_all_ranks_must_be_there(corpus, monkeypatch, kind, world):
    monkeypatch.setattr(dist, "get_world_size", lambda: world)
    values = {**corpus, "max_seq_len": 27}
    rows = len(build(values, kind, train=False).dataloader.dataset)
    whole = rows // world
    build(values, kind, batch_size=whole)
    said = f"gives 20 documents and {rows} sequences for training; a batch takes {world * (whole + 1)}$"
    with pytest.raises(DataError, match=said):
        build(values, kind, batch_size=whole + 1)
    build(values, kind, train=False, batch_size=999)


@pytest.mark.parametrize("kind", ["masked", "causal"])
def test_evaluation_needs_one_sequence(tmp_path, kind):
    path = tmp_path / "one.txt"
    values = {"source": str(path), "eval_source": str(path)}
    path.write_text("a few words")
    assert len(build(values, kind, train=False).dataloader.dataset) == 1
    path.write_text("")
    with pytest.raises(DataError, match=r"one.txt holds no text$"):
        build(values, kind, train=False)


def test_packed_rows_are_counted_in_place_of_sequences(corpus):
    values = {**corpus, "max_seq_len": 27}
    rows = len(build(values, packed=True).dataloader.dataset)
    assert rows < 20
    with pytest.raises(DataError, match=f"20 documents and {rows} sequences"):
        build(values, packed=True, batch_size=rows + 1)


def rows_of(spec):
    """All rows of a finite data set."""
    return map(spec.dataloader.dataset.__getitem__, range(len(spec.dataloader.dataset)))


def test_options_of_causal_windows_arrive(corpus):
    values = {**corpus, "max_seq_len": 27}
    plain, tagged = (build({**values, **more}, "causal") for more in ({}, {"domain_tag": "web"}))
    assert sum(row["tagged"].sum().item() for row in rows_of(plain)) == 0
    assert sum(row["tagged"].sum().item() for row in rows_of(tagged)) == 40
    assert plain.dataloader.collate_fn.boundary_loss is True
    apart = build({**values, "boundary_loss": False}, "causal")
    assert apart.dataloader.collate_fn.boundary_loss is False
    often = build({**values, "upsample_from": 25, "upsample_times": 3}, "causal")
    words = [sum(int((row["input_ids"] > 4).sum()) for row in rows_of(s)) for s in (plain, often)]
    assert words == [sum(range(6, 26)), sum(range(6, 26)) + 2 * 25]


class Loader(list):
    """Batches, and all of their tokens but 0 for a collator's eligible ones."""

    collate_fn = SimpleNamespace(eligible=lambda batch: batch["input_ids"] != 0)


def entropy_of(counts):
    total = sum(counts)
    return -sum(n / total * math.log(n / total) for n in counts)


def batches(*rows):
    return SimpleNamespace(dataloader=Loader({"input_ids": torch.tensor([row])} for row in rows))


def test_the_unigram_entropy_of_a_few_tokens():
    """Batches of other largest tokens, tokens that come once, and some that are not eligible."""
    spec = batches([0, 9, 9, 9], [2, 2, 0, 0], [9, 4, 11, 0])
    assert unigram_entropy(spec) == pytest.approx(entropy_of([4, 2, 1, 1]), rel=1e-12)
    assert unigram_entropy(batches([3, 3, 0])) == 0


def test_the_unigram_entropy_is_that_of_all_ranks(monkeypatch):
    """Another rank has seen token 1 five times and token 9 twice, and none beyond."""
    other = torch.tensor([0, 5, 0, 0, 0, 0, 0, 0, 0, 2])
    monkeypatch.setattr(dist, "all_gather_object", lambda counts: [counts, other])
    found = unigram_entropy(batches([9, 9, 4, 11]))
    assert found == pytest.approx(entropy_of([5, 4, 1, 1]), rel=1e-12)


def test_tokens_of_a_batch_by_hand():
    batch = {
        "attention_mask": torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0]]),
        "labels": torch.tensor([[-100, 0, 7, -100], [-100] * 4]),
    }
    assert count_tokens(batch) == {"total": 4, "loss_generating": 2}
    nothing = count_tokens({**batch, "labels": torch.full((2, 4), -100)})
    assert torch.tensor(nothing["loss_generating"]) > 0, "Composer divides by it, in float32"
    assert torch.tensor(sum([nothing["loss_generating"], 1.0])) == 1


@pytest.mark.parametrize("kind", ["masked", "causal"])
def test_composer_counts_those_tokens(corpus, kind):
    spec = build({**corpus, "max_seq_len": 27}, kind)
    batch = {"attention_mask": torch.ones(2, 3), "labels": torch.tensor([[-100, 1, 1], [1, 1, 1]])}
    assert spec.get_num_tokens_in_batch(batch) == 6
    assert spec.get_num_tokens_in_batch(batch, token_type="loss_generating") == 5


@pytest.mark.parametrize(("train", "counts"), [(True, [3, 3]), (False, [4, 4])])
def test_ranks_have_equally_many(monkeypatch, train, counts):
    """Seven for two ranks: in training one is left out, in evaluation one comes twice."""
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    drawn = []
    for rank in range(2):
        monkeypatch.setattr(dist, "get_global_rank", lambda rank=rank: rank)
        drawn.append(list(EpochSampler(range(7), train, seed=1)))
    assert [len(each) for each in drawn] == counts
    if not train:
        assert drawn == [[0, 2, 4, 6], [1, 3, 5, 0]]
