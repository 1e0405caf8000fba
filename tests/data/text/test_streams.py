"""Hub data sets by streaming, on a local stand-in for the Hub: the same library, no network."""

import json

import pytest
import torch
from paths import ROOT
from torch.utils.data import DataLoader
from words import TEXTS

from cadenza.data import (
    DataError,
    MaskedLMCollator,
    TextConfig,
    TokenizedStream,
    build_dataspec,
    documents,
    train_wordpiece,
)
from cadenza.data.loading import data_loader
from cadenza.data.text.rows import Texts
from cadenza.recipe import load, run


def test_c4_is_streamed_shuffled_and_capped(asked):
    cfg = TextConfig(source="c4", eval_documents=7, shuffle_buffer=16)
    train = list(documents(cfg, train=True, seed=1))
    assert asked == [("allenai/c4", "en", "train", True)]
    assert sorted(train) == sorted(TEXTS)
    assert train != TEXTS
    assert train == list(documents(cfg, train=True, seed=1))
    assert train != list(documents(cfg, train=True, seed=2))
    assert list(documents(cfg, train=False)) == TEXTS[:7]
    assert asked[-1] == ("allenai/c4", "en", "validation", True)


def test_ranks_read_different_documents(asked, monkeypatch):
    from composer.utils import dist

    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    read = []
    for rank in range(2):
        monkeypatch.setattr(dist, "get_global_rank", lambda rank=rank: rank)
        read.append(set(documents(TextConfig(source="some/set"), train=True)))
    assert read[0] | read[1] == set(TEXTS)
    assert not read[0] & read[1]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_makes_batches(asked, workers):
    tokenizer = train_wordpiece(TEXTS, 300)
    cfg = TextConfig(source="c4", max_seq_len=16, num_workers=workers)
    spec = build_dataspec(cfg, tokenizer, train=False, batch_size=8, seed=3)
    batches = [spec.batch_transforms(batch) for batch in spec.dataloader]
    assert sum(len(batch["input_ids"]) for batch in batches) == len(TEXTS), "each once, whatever the workers"
    assert all((batch["labels"] != -100).any() for batch in batches)
    again = [spec.batch_transforms(batch) for batch in spec.dataloader]
    assert all(torch.equal(a["labels"], b["labels"]) for a, b in zip(batches, again, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_every_pass_in_training_is_shuffled_and_masked_anew(asked, workers):
    tokenizer = train_wordpiece(TEXTS, 300)
    cfg = TextConfig(source="c4", max_seq_len=16, num_workers=workers, shuffle_buffer=16)
    loaders = [build_dataspec(cfg, tokenizer, train=True, batch_size=40, seed=3) for _ in range(2)]
    first, second = (next(iter(loaders[0].dataloader)) for _ in range(2))
    assert not set(first["draw"].tolist()) & set(second["draw"].tolist())
    assert not torch.equal(first["input_ids"], second["input_ids"])
    next(iter(loaders[1].dataloader))  # as a resume does for each epoch that is over
    resumed = next(iter(loaders[1].dataloader))
    assert torch.equal(resumed["draw"], second["draw"])
    assert torch.equal(resumed["input_ids"], second["input_ids"])


def test_what_is_not_text_is_said(asked, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a"}\n{"text": null}\n')
    with pytest.raises(DataError, match=r"'text' of .*rows.jsonl line 2 holds NoneType, not text"):
        documents(TextConfig(source=str(path)), train=True)


@pytest.mark.slow
def test_a_recipe_trains_and_evaluates_on_a_stream(asked, tmp_path, capsys):
    sizes = [f"model.config.{name}=32" for name in ("hidden_size", "intermediate_size")]
    data = ["data.source=c4", "data.eval_documents=9", "data.max_seq_len=16", "data.num_workers=1"]
    train = ["train.max_duration=3ba", "train.global_batch_size=8", "train.save_interval=null"]
    tokenizer = ["tokenizer.vocab_size=300", f"tokenizer.cache_dir={tmp_path}"]
    pairs = [*sizes, *data, *train, *tokenizer, f"train.run_folder={tmp_path}"]
    files = [str(ROOT / "yamls/mosaicbert.yaml"), str(ROOT / "yamls/scale/cpu.yaml")]
    record = json.loads(run.train(load(files, pairs)).read_text())
    assert record["train"]["batches"] == 3
    assert 0 < record["eval"]["unigram_entropy"] < record["eval"]["loss"] < 10


@pytest.mark.slow
def test_a_wrong_field_or_a_broken_set_is_said(asked, monkeypatch):
    with pytest.raises(DataError, match=r"data\.text_field: allenai/c4 has no 'body'; it has text, url"):
        documents(TextConfig(source="c4", text_field="body"), train=True)
    import datasets

    def fail(*args, **kwargs):
        raise FileNotFoundError("no such\nsubset")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(DataError, match=r"'a/b' can't be read \(FileNotFoundError: no such subset\); check"):
        documents(TextConfig(source="a/b"), train=True)


def test_an_error_in_a_loading_process_is_said_as_in_this_one():
    rows = Texts([{"text": "a b c"}] * 3 + [{"body": 1}], TextConfig())
    said = r"^data.text_field: a row of the stream has no 'text'; it has body$"
    for workers in (0, 1):
        dataset = TokenizedStream(rows, train_wordpiece(TEXTS, 300), 16, split=False)
        with pytest.raises(DataError, match=said):
            list(DataLoader(dataset, batch_size=None, num_workers=workers))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("train", [True, False])
def test_a_stream_without_a_batch_is_said(train, workers):
    """Composer would begin one pass after the other, without end."""
    tokenizer = train_wordpiece(TEXTS, 300)
    collator, cfg = MaskedLMCollator(tokenizer, 0.3, 16, 0), TextConfig(num_workers=workers)

    def loader(texts):
        dataset = TokenizedStream(texts, tokenizer, 16, split=False)
        return data_loader(cfg, dataset, None, collator, train, 4, 0)

    part = "training" if train else "evaluation"
    with pytest.raises(DataError, match=rf"^data.source: the stream gives no batch of 4 rows for {part} on "):
        list(loader(["[SEP]", "", " "] * 9))
    once = 2 if train else 3  # each process reads all nine
    assert len(list(loader(TEXTS[:9]))) == once * max(workers, 1)


def test_a_process_that_loads_has_a_pass_of_its_own(asked, monkeypatch):
    """Data sets of the Hub share their pass among processes, which would raise it together."""
    texts = documents(TextConfig(source="c4"), train=True)
    rows = texts.rows
    texts.set_epoch(1)
    assert rows.epoch == 1
    monkeypatch.setattr("cadenza.data.text.rows.get_worker_info", lambda: object())
    texts.set_epoch(2)
    assert (rows.epoch, texts.rows.epoch) == (1, 2)
    assert sorted(texts) == sorted(Texts(rows, TextConfig()))
