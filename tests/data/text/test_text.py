"""Text data: sources, tokenizer, sequences, loaders."""

import copy
import gzip
import json
import logging
import math
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import torch
from words import TaggedDocuments, tokenized

from cadenza.data import (
    DataError,
    EpochSampler,
    TextConfig,
    TokenizedStream,
    TokenizerConfig,
    build_dataspec,
    build_tokenizer,
    count_tokens,
    documents,
    hub,
    python_docs,
    train_wordpiece,
    unigram_entropy,
)
from cadenza.data.text.vocabulary import TRAINERS

SENTENCES = [f"the {a} {b} jumps over {n} lazy dogs" for n in range(8) for a in "abcde" for b in "fghij"]


@pytest.fixture(scope="module")
def tokenizer():
    return train_wordpiece(SENTENCES, 300)


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "text.jsonl"
    path.write_text("".join(json.dumps({"text": text * 3}) + "\n" for text in SENTENCES))
    return TextConfig(source=str(path), max_seq_len=16, long_documents="split", eval_fraction=0.2)


@pytest.mark.slow
def test_python_docs_is_english():
    texts = python_docs()
    assert len(texts) >= 500
    assert sum(map(len, texts)) > 1_500_000
    words = Counter(word for text in texts for word in text.lower().split())
    assert [word for word, _ in words.most_common(1)] == ["the"]
    assert texts == python_docs()


@pytest.mark.slow
def test_split_is_by_document_and_stable():
    texts = python_docs()
    cfg = TextConfig(eval_fraction=0.1)
    train, evaluation = documents(cfg, train=True), documents(cfg, train=False)
    assert set(train).isdisjoint(evaluation)
    assert sorted([*train, *evaluation]) == sorted(texts)
    assert len(evaluation) == pytest.approx(0.1 * len(texts), rel=0.5)
    assert documents(cfg, train=False) == evaluation
    assert documents(TextConfig(eval_fraction=0.1, eval_documents=3), train=False) == evaluation[:3]


def test_local_files(tmp_path):
    (tmp_path / "one.txt").write_text("first document\n\nstill the first")
    (tmp_path / "two.jsonl").write_text('{"body": "a"}\n{"body": "b"}\n')
    with gzip.open(tmp_path / "three.jsonl.gz", "wt") as file:
        file.write('{"body": "c"}\n')
    parquet.write_table(pa.table({"body": ["d", "e"], "other": [1, 2]}), tmp_path / "four.parquet")

    def read(pattern):
        cfg = TextConfig(
            source=str(tmp_path / pattern), text_field="body", eval_source=str(tmp_path / "one.txt")
        )
        return documents(cfg, train=True), documents(cfg, train=False)

    assert read("*.jsonl") == (["a", "b"], ["first document\n\nstill the first"])
    assert read("three.jsonl.gz")[0] == ["c"]
    assert read("*.parquet")[0] == ["d", "e"]


def test_what_is_wrong_with_a_source_is_said(tmp_path, monkeypatch):
    def read(source, **kwargs):
        return documents(TextConfig(source=source, **kwargs), train=True)

    with pytest.raises(DataError, match=r"data.source: no file matches .*nothing\*\.jsonl"):
        read(str(tmp_path / "nothing*.jsonl"))
    (tmp_path / "a.jsonl").write_text('{"body": "a", "id": 1}\n')
    with pytest.raises(DataError, match=r"a.jsonl line 1 has no 'text'; it has body, id"):
        read(str(tmp_path / "a.jsonl"))
    (tmp_path / "b.jsonl").write_text('{"text": "a"}\n{"text": \n')
    with pytest.raises(DataError, match=r"b.jsonl line 2 is not JSON"):
        read(str(tmp_path / "b.jsonl"))
    (tmp_path / "c.jsonl").write_text("")
    with pytest.raises(DataError, match=r"c.jsonl holds no text"):
        read(str(tmp_path / "c.jsonl"))
    monkeypatch.setattr(hub, "reachable", lambda: False)
    with pytest.raises(DataError, match="data set 'allenai/c4' can't be reached: the Hub doesn't answer"):
        read("c4")
    with pytest.raises(DataError, match="data set 'some/set' can't be reached"):
        read("some/set")


def test_mds_names_its_install_command(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "streaming", None)
    with pytest.raises(DataError, match="needs mosaicml-streaming; make install brings it"):
        documents(TextConfig(source="mds", local="x"), train=True)


def test_wordpiece_layout_and_round_trip(tokenizer):
    assert tokenizer.convert_tokens_to_ids(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]) == [0, 1, 2, 3, 4]
    ids = tokenizer("the a f jumps over 3 lazy dogs")["input_ids"]
    assert (ids[0], ids[-1]) == (2, 3)
    assert tokenizer.decode(ids, skip_special_tokens=True) == "the a f jumps over 3 lazy dogs"
    pair = tokenizer("lazy", "dogs")
    assert pair["input_ids"].count(3) == 2


def test_trained_tokenizers_are_cached(tmp_path, monkeypatch):
    cfg = TokenizerConfig(vocab_size=300, cache_dir=str(tmp_path))
    first = build_tokenizer(cfg, lambda: SENTENCES)
    monkeypatch.setitem(TRAINERS, "wordpiece", None)
    again = build_tokenizer(cfg, lambda: SENTENCES)
    assert first.get_vocab() == again.get_vocab()
    with pytest.raises(TypeError):
        build_tokenizer(cfg, lambda: SENTENCES[:-1])


def test_what_is_wrong_with_a_tokenizer_is_said(tmp_path, monkeypatch, tokenizer):
    monkeypatch.setattr(hub, "reachable", lambda: False)
    with pytest.raises(DataError, match=r"there is no folder \./nowhere"):
        build_tokenizer(TokenizerConfig(name="./nowhere"), list)
    with pytest.raises(DataError, match=r"bert-base-uncased can't be loaded .it isn't cached, and the Hub"):
        build_tokenizer(TokenizerConfig(name="bert-base-uncased"), list)
    tokenizer.save_pretrained(tmp_path)
    assert build_tokenizer(TokenizerConfig(name=str(tmp_path)), list).mask_token == "[MASK]"
    from transformers import PreTrainedTokenizerFast

    bare = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, pad_token="[PAD]")
    bare.save_pretrained(tmp_path / "bare")
    with pytest.raises(DataError, match="has no cls_token, sep_token, mask_token; masked LM needs them all"):
        build_tokenizer(TokenizerConfig(name=str(tmp_path / "bare")), list)


@pytest.mark.parametrize("length", [3, 8, 16])
def test_sequences(tokenizer, length):
    text = " ".join(SENTENCES[:3])
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    first = tokenized([text, "", "dogs"], tokenizer, length)
    assert len(first) == 2, "an empty document gives no sequence"
    assert first[0]["input_ids"].tolist() == [2, *ids[: length - 2], 3]
    pieces = tokenized([text], tokenizer, length, split=True)
    assert all(len(pieces[i]["input_ids"]) <= length for i in range(len(pieces)))
    assert [t for i in range(len(pieces)) for t in pieces[i]["input_ids"].tolist()[1:-1]] == ids


def test_long_documents_bring_no_warning(tokenizer):
    """Of tokens beyond what the tokenizer's model takes: they are cut off or go on in another row."""
    said = []
    handler = logging.Handler()
    handler.emit = said.append
    logging.getLogger("transformers").addHandler(handler)
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.model_max_length = 4
    sequences = tokenized([" ".join(SENTENCES[:3])], tokenizer, 8).rows
    (piece,) = TaggedDocuments(tokenizer, TextConfig())([" ".join(SENTENCES[:3])])
    logging.getLogger("transformers").removeHandler(handler)
    assert said == []
    assert sequences[0].dtype == piece[0].dtype == np.int32, "a corpus in memory takes four bytes a token"


def test_draws_carry_the_epoch_and_ranks_share_no_sequence(tokenizer, monkeypatch):
    from composer.utils import dist

    dataset = tokenized(SENTENCES, tokenizer, 16)
    draws = {}
    for rank in range(2):
        monkeypatch.setattr(dist, "get_world_size", lambda: 2)
        monkeypatch.setattr(dist, "get_global_rank", lambda rank=rank: rank)
        sampler = EpochSampler(dataset, train=True, seed=1)
        for epoch in range(2):
            sampler.set_epoch(epoch)
            draws[rank, epoch] = list(sampler)
        fixed = EpochSampler(dataset, train=False, seed=1)
        once = list(fixed)
        fixed.set_epoch(5)
        assert list(fixed) == once, "evaluation is the same every time"
    assert len({draw for each in draws.values() for draw in each}) == 2 * len(dataset)
    assert set(draws[0, 0]) | set(draws[1, 0]) == set(range(len(dataset)))
    assert dataset[len(dataset) + 3]["input_ids"].equal(dataset[3]["input_ids"])
    assert dataset[len(dataset) + 3]["draw"] == len(dataset) + 3


@pytest.mark.parametrize("workers", [0, 2])
def test_stream_draws_are_unique(tokenizer, workers):
    stream = TokenizedStream(SENTENCES, tokenizer, 16, split=False)
    loader = torch.utils.data.DataLoader(stream, batch_size=None, num_workers=workers)
    draws = [example["draw"] for example in loader]
    assert len(draws) == len(set(draws)) == len(SENTENCES) * max(workers, 1)


def test_tokens_are_counted_without_padding(corpus, tokenizer):
    spec = build_dataspec(corpus, tokenizer, train=True, batch_size=8, seed=3)
    padded = real = 0
    for raw in spec.dataloader:
        batch = spec.batch_transforms(raw)
        counts = spec.get_num_tokens_in_batch(batch)
        assert counts == int((batch["input_ids"] != 0).sum())
        labelled = spec.get_num_tokens_in_batch(batch, token_type="loss_generating")
        assert labelled == int((batch["labels"] >= 0).sum())
        padded, real = padded + batch["input_ids"].numel(), real + counts
    assert real < padded
    assert count_tokens(batch) == {"total": counts, "loss_generating": labelled}


def test_unigram_entropy(corpus, tokenizer):
    spec = build_dataspec(corpus, tokenizer, train=False, batch_size=8, seed=3)
    tokens = [batch["input_ids"].flatten().tolist() for batch in spec.dataloader]
    counted = Counter(token for row in tokens for token in row if token > 4)
    total = sum(counted.values())
    expected = -sum(n / total * math.log(n / total) for n in counted.values())
    assert unigram_entropy(spec) == pytest.approx(expected, rel=1e-9)
    assert 0 < expected < math.log(len(tokenizer))


def test_too_little_text_is_said(corpus, tokenizer):
    with pytest.raises(DataError, match=r"sequences for training; a batch takes 9999"):
        build_dataspec(corpus, tokenizer, train=True, batch_size=9999, seed=3)
