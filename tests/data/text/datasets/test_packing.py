"""Sequence packing: rows are full, nothing is lost, the same every time, and a recipe trains on them."""

import inspect

import numpy as np
import pytest
import torch
from families import batch, build
from omegaconf import OmegaConf
from words import Words, lengths, texts, tokenized

from cadenza.algorithms import REGISTRY, apply_sequence_packing
from cadenza.data import TextConfig, build_dataspec, build_tokenizer
from cadenza.data.text.datasets import packing
from cadenza.data.text.datasets.packing import PackedDocuments, PackedStream, first_fit, waste
from cadenza.data.text.python_docs import python_docs
from cadenza.data.text.tokenizer_config import TokenizerConfig
from cadenza.models import composer_model


def test_first_fit_takes_the_first_row_with_room():
    assert first_fit([5, 3, 4, 2, 6], 8) == [[4, 3], [0, 1], [2]]
    assert first_fit([], 8) == []
    with pytest.raises(ValueError, match="9 tokens doesn't fit a row of 8"):
        first_fit([9], 8)


def test_first_fit_at_its_edges():
    assert first_fit([8], 8) == [[0]]
    assert first_fit([3, 8, 5], 8) == [[1], [2, 0]]
    equal = first_fit([5] * 100 + [6] * 100, 11)
    assert equal == [[100 + n, n] for n in range(100)], "those of one length in their order"


def test_waste_by_hand():
    assert waste([8, 2], 8) == 1 - 10 / 16
    assert waste(iter([8]), 8) == 0
    source = tokenized(["w"] * 3 + ["w w w"], Words(), 8)
    assert PackedDocuments(source, 8, seed=0).waste == 1 - (3 * 3 + 5) / 16


@pytest.mark.parametrize("capacity", [128, 512])
def test_rows_hold_every_sequence_once_and_waste_little(capacity):
    source = tokenized(texts(), Words(), 128)
    packed = PackedDocuments(source, capacity, seed=0)
    assert sorted(i for n in range(len(packed)) for i in packed.row(n)) == list(range(3000))
    assert packed.waste <= 0.007
    for draw in (0, len(packed) - 1, len(packed) + 3):
        row = packed[draw]
        assert row["draw"] == draw
        assert len(row["input_ids"]) == len(row["document_ids"]) <= capacity
        assert (row["input_ids"] == 1).sum() == row["document_ids"].max()
        assert row["document_ids"].diff().min() >= 0


@pytest.mark.slow
def test_real_text_wastes_at_most_seven_in_a_thousand():
    docs = list(python_docs())
    tokenizer = build_tokenizer(TokenizerConfig(vocab_size=1000), lambda: iter(docs))
    source = tokenized(docs, tokenizer, 128, split=True)
    packed = PackedDocuments(source, 128, seed=17)
    assert packed.waste <= 0.007
    assert waste(lengths(source), 128) > packed.waste


def test_the_same_every_time_and_another_for_another_seed():
    source = tokenized(texts(300), Words(), 128)
    first, again, other = (PackedDocuments(source, 128, seed) for seed in (1, 1, 2))
    assert all(torch.equal(first[i]["input_ids"], again[i]["input_ids"]) for i in range(len(first)))
    assert any(not torch.equal(first[i]["input_ids"], other[i]["input_ids"]) for i in range(5))


def test_a_stream_loses_nothing(monkeypatch):
    monkeypatch.setattr("cadenza.data.text.datasets.packing.WINDOW", 500)
    rows = list(PackedStream(texts(), Words(), 128, False))
    source = tokenized(texts(), Words(), 128)
    starts = sum(int((row["input_ids"] == 1).sum()) for row in rows)
    assert starts == 3000
    assert sum(len(row["input_ids"]) for row in rows) == sum(lengths(source))
    assert [row["draw"] for row in rows] == list(range(len(rows)))
    assert waste([len(row["input_ids"]) for row in rows], 128) <= 0.007


def test_rows_are_packed_by_the_window(monkeypatch):
    """Which sequences share a row hangs on the window's size: another one is another training run."""
    assert packing.WINDOW == 8192
    monkeypatch.setattr(packing, "WINDOW", 40)
    source = tokenized(texts(130), Words(), 128)
    order = np.random.default_rng(3).permutation(130)
    plain = []
    for start in (0, 40, 80, 120):
        window = order[start : start + 40]
        sizes = [len(source[int(i)]["input_ids"]) for i in window]
        plain += [[int(window[i]) for i in row] for row in first_fit(sizes, 128)]
    packed = PackedDocuments(source, 128, seed=3)
    assert [packed.row(n) for n in range(len(packed))] == plain
    together = np.concatenate(source.sequences(plain[5]))
    assert packed[5]["input_ids"].tolist() == together.tolist()


class Lengths(Words):
    """Tokenizes a number as so many tokens."""

    def __call__(self, texts, **_):
        return {"input_ids": [[7] * int(text) for text in texts]}


def stream_of(bodies, capacity):
    """The lengths in each row of a stream of documents of so many tokens; [CLS] and [SEP] are two more."""
    for row in PackedStream(list(map(str, bodies)), Lengths(), capacity, False):
        yield row["document_ids"].bincount()[1:].tolist()


def test_a_streams_windows_are_packed_one_by_one(monkeypatch):
    """The gap beside 6 would hold 4, of the next window."""
    monkeypatch.setattr(packing, "WINDOW", 5)
    rows = list(stream_of([4, 7, 5, 4, 6, 2, 2, 8, 7, 1], 10))
    assert rows[:5] == [[9], [8], [7], [6], [6]]
    assert rows[5:] == [[10], [9], [4, 4], [3]]


def test_a_streams_rows_are_those_of_a_finite_source_in_its_order(monkeypatch):
    monkeypatch.setattr(packing, "WINDOW", 500)
    source = tokenized(texts(), Words(), 128)
    windows = [range(start, start + 500) for start in range(0, 3000, 500)]
    plain = [[w[i] for i in row] for w in windows for row in first_fit(source.lengths()[w], 128)]
    rows = list(PackedStream(texts(), Words(), 128, False))
    expected = [np.concatenate(source.sequences(row)).tolist() for row in plain]
    assert [row["input_ids"].tolist() for row in rows] == expected


def dataspec(train, packed=True):
    cfg = TextConfig(max_seq_len=128, long_documents="split", eval_fraction=0.2)
    tokenizer = build_tokenizer(TokenizerConfig(vocab_size=1000), lambda: python_docs())
    return build_dataspec(cfg, tokenizer, train=train, batch_size=8, seed=3, packed=packed)


@pytest.mark.slow
def test_batches_bring_their_documents():
    spec = dataspec(train=True)
    found = spec.batch_transforms(next(iter(spec.dataloader)))
    assert set(found) == {"input_ids", "attention_mask", "document_ids", "labels", "draw"}
    real = found["attention_mask"].bool()
    assert ((found["document_ids"] > 0) == real).all()
    assert (found["document_ids"][~real] == -1).all()
    assert real.float().mean() > 0.98
    assert max(int(b["document_ids"].max()) for b in spec.dataloader) > 2


def test_what_it_takes_is_in_the_signature():
    """Composer and Hugging Face's Trainer pass on what the signature names, and drop the rest silently."""
    before = composer_model(build("bert"))
    assert "document_ids" not in before.model_forward_args
    apply_sequence_packing(before)
    assert "document_ids" in before.model_forward_args
    model = build("bert")
    report = apply_sequence_packing(model)
    signature = inspect.signature(model.forward)
    assert list(signature.parameters)[:2] == ["input_ids", "attention_mask"]
    assert "document_ids" in signature.parameters
    assert "document_ids" in composer_model(model).model_forward_args
    report.undo()
    assert "document_ids" not in inspect.signature(model.forward).parameters


def test_composer_passes_the_documents_on():
    ids = batch("bert", padding=None)["input_ids"]
    document_ids = torch.where(torch.arange(13) < 5, 1, 2).expand(ids.shape)
    wrapped = composer_model(build("bert"))
    apply_sequence_packing(wrapped)
    together = wrapped({"input_ids": ids, "document_ids": document_ids}).logits
    alone = build("bert")(input_ids=ids[:, :5]).logits
    assert (together[:, :5] - alone).abs().max() < 1e-6


RECIPE = {
    "data": {"source": "python_docs", "long_documents": "split", "max_seq_len": 64},
    "tokenizer": {"name": "wordpiece", "vocab_size": 1000},
    "train": {"max_duration": "4ba", "global_batch_size": 8, "eval_interval": "4ba"},
}


@pytest.mark.slow
def test_a_recipe_trains_on_packed_rows(tmp_path):
    from cadenza.recipe import load
    from cadenza.recipe.run import train

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    recipe = OmegaConf.merge(
        RECIPE,
        {
            "name": "packed",
            "model": {"model_type": "bert", "config": sizes},
            "algorithms": {"sequence_packing": {}, "unpadding": {}, "sparse_prediction": {}},
            "train": {"run_folder": str(tmp_path)},
        },
    )
    OmegaConf.save(recipe, tmp_path / "recipe.yaml")
    record = train(load([str(tmp_path / "recipe.yaml")], []))
    assert record is not None
    run = OmegaConf.load(record)
    assert run.train.batches == 4
    assert run.train.real_tokens > 0.97 * 4 * 8 * 64


def test_only_sequence_packing_packs():
    packs = [name for name, technique in REGISTRY.items() if getattr(technique, "packs_rows", False)]
    assert packs == ["sequence_packing"]
