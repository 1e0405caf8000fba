"""Sequence packing: rows are full, nothing is lost, the same every time, and a recipe trains on them."""

import inspect

import numpy as np
import pytest
import torch
from families import batch, build
from omegaconf import OmegaConf

from cadenza.algorithms import REGISTRY, SequencePacking, apply_sequence_packing
from cadenza.data import TextConfig, build_dataspec, build_tokenizer
from cadenza.data.config import TokenizerConfig
from cadenza.data.packing import PackedDocuments, PackedStream, first_fit, waste
from cadenza.data.python_docs import python_docs
from cadenza.data.sequences import TokenizedDocuments
from cadenza.models import composer_model


class Words:
    """A tokenizer of one token a word."""

    cls_token_id, sep_token_id, pad_token_id, mask_token_id = 1, 2, 0, 3
    all_special_ids = (0, 1, 2, 3)

    def __call__(self, texts, **_):
        return {"input_ids": [[5 + len(word) % 90 for word in text.split()] for text in texts]}

    def __len__(self):
        return 100


def texts(count=3000, seed=0):
    """Documents of web-like lengths: a median of 55 words, one in five above 126."""
    lengths = np.random.default_rng(seed).lognormal(4, 1, count).clip(1, 126).astype(int)
    return [" ".join("w" * (1 + (i + j) % 50) for j in range(n)) for i, n in enumerate(lengths)]


def test_first_fit_takes_the_first_row_with_room():
    assert first_fit([5, 3, 4, 2, 6], 8) == [[4, 3], [0, 1], [2]]
    assert first_fit([], 8) == []
    with pytest.raises(ValueError, match="9 tokens doesn't fit a row of 8"):
        first_fit([9], 8)


@pytest.mark.parametrize("capacity", [128, 512])
def test_rows_hold_every_sequence_once_and_waste_little(capacity):
    source = TokenizedDocuments(texts(), Words(), 128, split=False)
    packed = PackedDocuments(source, capacity, seed=0)
    assert sorted(i for row in packed.rows for i in row) == list(range(3000))
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
    source = TokenizedDocuments(docs, tokenizer, 128, split=True)
    packed = PackedDocuments(source, 128, seed=17)
    assert packed.waste <= 0.007
    assert waste([len(s) for s in source.sequences], 128) > packed.waste


def test_the_same_every_time_and_another_for_another_seed():
    source = TokenizedDocuments(texts(300), Words(), 128, split=False)
    first, again, other = (PackedDocuments(source, 128, seed) for seed in (1, 1, 2))
    assert all(torch.equal(first[i]["input_ids"], again[i]["input_ids"]) for i in range(len(first)))
    assert any(not torch.equal(first[i]["input_ids"], other[i]["input_ids"]) for i in range(5))


def test_a_stream_loses_nothing(monkeypatch):
    monkeypatch.setattr("cadenza.data.packing.WINDOW", 500)
    rows = list(PackedStream(texts(), Words(), 128, False))
    source = TokenizedDocuments(texts(), Words(), 128, split=False)
    starts = sum(int((row["input_ids"] == 1).sum()) for row in rows)
    assert starts == 3000
    assert sum(len(row["input_ids"]) for row in rows) == sum(len(s) for s in source.sequences)
    assert [row["draw"] for row in rows] == list(range(len(rows)))
    assert waste([len(row["input_ids"]) for row in rows], 128) <= 0.007


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
    from cadenza.recipe.play import play

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
    record = play(load([str(tmp_path / "recipe.yaml")], []))
    assert record is not None
    run = OmegaConf.load(record)
    assert run.train.batches == 4
    assert run.train.real_tokens > 0.97 * 4 * 8 * 64


def test_only_sequence_packing_packs():
    assert [cls for cls in REGISTRY.values() if getattr(cls, "packs_rows", False)] == [SequencePacking]
