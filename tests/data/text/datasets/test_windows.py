"""Windows of documents: every token once, boundaries and labels where they belong, the same every time."""

import json

import numpy as np
import pytest
import torch
from words import Tagged, TaggedDocuments, Words, texts, windowed

from cadenza.data import DataError, TextConfig, build_causal_dataspec, documents, train_wordpiece
from cadenza.data.text.datasets.window_streams import WindowedStream
from cadenza.data.text.datasets.windows import (
    CausalLMCollator,
    anchor_id,
    end_id,
    windows,
)
from cadenza.recipe import RecipeError, run

WORDS = Words()


def pieces_of(rows):
    """(document, is it the first of its window, tokens) for each document of each window."""
    for row in rows:
        for number in range(1, int(row["document_ids"].max()) + 1):
            yield number == 1, row["input_ids"][row["document_ids"] == number]


@pytest.mark.parametrize("size", [3, 16, 100, 1001])
def test_windows_are_full_and_lose_nothing(size):
    cfg = TextConfig(max_seq_len=size)
    given = [tokens for tokens, _ in TaggedDocuments(WORDS, cfg)(texts(300))]
    rows = list(windows(TaggedDocuments(WORDS, cfg)(texts(300)), size, anchor=1))
    assert all(len(row["input_ids"]) == size for row in rows[:-1])
    assert 1 < len(rows[-1]["input_ids"]) <= size
    for row in rows:
        ids = row["document_ids"]
        assert row["input_ids"][0] == 1
        assert ids[0] == 0
        assert (ids[1:] > 0).all()
        assert set(ids.diff().tolist()) <= {0, 1}
    together = np.concatenate([row["input_ids"][1:].numpy() for row in rows])
    assert np.array_equal(together, np.concatenate(given))


def test_a_document_starts_where_it_is_said_to():
    cfg = TextConfig(max_seq_len=64)
    given = [tokens.tolist() for tokens, _ in TaggedDocuments(WORDS, cfg)(texts(50))]
    joined, whole = [], []
    for first, tokens in pieces_of(windows(TaggedDocuments(WORDS, cfg)(texts(50)), 64, anchor=1)):
        if first and joined:  # what goes on from the window before
            joined += tokens.tolist()
        else:
            joined = tokens.tolist()
        if joined[-1] == WORDS.sep_token_id:
            whole.append(joined)
            joined = []
    assert whole == given


def test_long_documents_come_more_often():
    cfg = TextConfig(max_seq_len=64, upsample_from=100, upsample_times=3)
    lengths = [len(tokens) - 1 for tokens, _ in TaggedDocuments(WORDS, cfg)(texts(200))]
    plain = [len(tokens) - 1 for tokens, _ in TaggedDocuments(WORDS, TextConfig(max_seq_len=64))(texts(200))]
    assert sum(n >= 100 for n in lengths) == 3 * sum(n >= 100 for n in plain) > 0
    assert sum(n < 100 for n in lengths) == sum(n < 100 for n in plain)


def test_as_many_tokens_as_said_are_long_enough():
    def counts(**more):
        pieces = list(TaggedDocuments(WORDS, TextConfig(**more))(["w w", "", "w w w", "w w w w"]))
        return [len(tokens) - 1 for tokens, _ in pieces]

    assert counts(upsample_from=3, upsample_times=2) == [2, 3, 3, 4, 4], "an empty document gives none"
    assert counts(upsample_times=2) == [2, 3, 4]
    assert counts(upsample_from=3) == [2, 3, 4]


def test_a_real_tokenizer_brings_no_special_tokens():
    tokenizer = train_wordpiece(["lazy dogs jump over lazy dogs"] * 3, 300)
    lazy, dogs = tokenizer.convert_tokens_to_ids(["lazy", "dogs"])
    (piece,) = TaggedDocuments(tokenizer, TextConfig(domain_tag="lazy"))(["dogs dogs"])
    assert (piece[0].tolist(), piece[1]) == ([lazy, dogs, dogs, tokenizer.sep_token_id], 1)


@pytest.mark.parametrize(
    ("lengths", "size", "expected"),
    [
        ([4], 5, [[1] * 4]),
        ([4, 4], 5, [[1] * 4, [1] * 4]),
        ([5], 5, [[1] * 4, [1]]),
        ([2, 2, 1], 5, [[1, 1, 2, 2], [1]]),
        ([3, 6], 5, [[1, 1, 1, 2], [1] * 4, [1]]),
    ],
)
def test_windows_are_full_to_the_last_token(lengths, size, expected):
    pieces = [(np.arange(10, 10 + n, dtype=np.int32), 0) for n in lengths]
    rows = list(windows(pieces, size, anchor=1))
    assert [row["document_ids"].tolist() for row in rows] == [[0, *ids] for ids in expected]
    assert all(row["input_ids"][0] == 1 for row in rows)


@pytest.mark.parametrize(("tag", "tagged"), [(6, [4, 2, 0]), (8, [4, 4, 0]), (3, [3, 0, 0]), (4, [4, 0, 0])])
def test_a_tag_that_a_window_cuts_goes_on_in_the_next(tag, tagged):
    pieces = [(np.arange(10, 21, dtype=np.int32), tag)]
    rows = list(windows(pieces, 5, anchor=1))
    assert [row["tagged"].sum().item() for row in rows] == tagged
    for row, count in zip(rows, tagged, strict=True):
        assert row["tagged"].tolist() == [False] + [True] * count + [False] * (len(row["tagged"]) - 1 - count)


def test_a_tag_behind_another_document_is_cut_as_well():
    pieces = [(np.arange(2, dtype=np.int32), 1), (np.arange(8, dtype=np.int32), 5)]
    rows = list(windows(pieces, 5, anchor=1))
    assert [row["tagged"].int().tolist() for row in rows] == [[0, 1, 0, 1, 1], [0, 1, 1, 1, 0], [0, 0, 0]]


@pytest.mark.parametrize(("pad", "expected"), [(9, 9), (None, 2), (0, 0)])
def test_what_a_causal_batch_holds(pad, expected):
    """Padded by the tokenizer's padding, or by its end token where it has none."""
    tokenizer = Words()
    tokenizer.pad_token_id = pad
    rows = windows([(np.arange(10, 16, dtype=np.int32), 0)], 5, anchor=1)
    collator = CausalLMCollator(tokenizer, boundary_loss=True)
    batch = collator([{**row, "draw": 30 + n} for n, row in enumerate(rows)])
    assert set(batch) == {"input_ids", "attention_mask", "document_ids", "labels", "draw"}
    assert batch["input_ids"].tolist() == [[1, 10, 11, 12, 13], [1, 14, 15, expected, expected]]
    assert batch["draw"].tolist() == [30, 31]
    assert batch["labels"].tolist() == [[-100, 10, 11, 12, 13], [-100, 14, 15, -100, -100]]
    assert torch.equal(collator.eligible(batch), batch["labels"] != -100)


def test_labels_leave_out_anchor_padding_tags_and_boundaries():
    cfg = TextConfig(max_seq_len=12, domain_tag="web")
    made = windows(TaggedDocuments(Tagged(), cfg)(["a b c", "d e"]), 12, anchor=1)
    rows = [{**row, "draw": n} for n, row in enumerate(made)]
    rows.append({**rows[0], **{k: rows[0][k][:5] for k in ("input_ids", "document_ids", "tagged")}})
    batch = CausalLMCollator(Tagged(), boundary_loss=True)(rows)
    assert batch["document_ids"].tolist() == [[0] + [1] * 6 + [2] * 5, [0, 1, 1, 1, 1] + [-1] * 7]
    assert batch["attention_mask"].tolist() == [[1] * 12, [1] * 5 + [0] * 7]
    labelled = (batch["labels"] != -100).int().tolist()
    assert labelled[0] == [0, 0, 0, 1, 1, 1, 1, 0, 0, 1, 1, 1]
    assert labelled[1] == [0, 0, 0, 1, 1] + [0] * 7
    plain = list(windows(TaggedDocuments(WORDS, TextConfig())(["a b c", "d e"]), 8, anchor=1))
    rows = [{**plain[0], "draw": 0}]
    for boundary, expected in ((True, [0, 1, 1, 1, 1, 1, 1, 1]), (False, [0, 1, 1, 1, 1, 0, 1, 1])):
        batch = CausalLMCollator(WORDS, boundary_loss=boundary)(rows)
        assert (batch["labels"] != -100).int()[0].tolist() == expected


@pytest.mark.parametrize("more", [{}, {"domain_tag": "web", "upsample_from": 60, "upsample_times": 3}])
def test_the_same_windows_from_the_same_seed(more):
    cfg = TextConfig(max_seq_len=64, **more)
    first, again, other = (windowed(texts(100), Tagged(), cfg, seed) for seed in (1, 1, 2))
    for draw in (0, 3, len(first) + 3):
        assert torch.equal(first[draw]["input_ids"], again[draw]["input_ids"])
        assert first[draw]["draw"] == draw
    assert not torch.equal(first[0]["input_ids"], other[0]["input_ids"])
    order = np.random.default_rng(1).permutation(100)
    pieces = TaggedDocuments(Tagged(), cfg)([texts(100)[i] for i in order])
    plain = list(windows(pieces, 64, anchor=1))
    assert len(first) == len(plain)
    for index, row in enumerate(plain):
        assert all(torch.equal(first[index][name], row[name]) for name in row)


def test_a_stream_gives_every_token_too():
    cfg = TextConfig(max_seq_len=64)
    stream = WindowedStream(texts(100), WORDS, cfg, fixed=False)
    given = sum(len(tokens) for tokens, _ in TaggedDocuments(WORDS, cfg)(texts(100)))
    first, second = list(stream), list(stream)
    assert sum(len(row["input_ids"]) - 1 for row in first) == given
    draws = [row["draw"] for row in first + second]
    assert len(set(draws)) == len(draws)


def test_anchors_and_ends_of_tokenizers():
    def tokenizer(**ids):
        return type("Tokenizer", (), ids)()

    assert anchor_id(tokenizer(bos_token_id=5, eos_token_id=6)) == 5
    assert anchor_id(tokenizer(bos_token_id=None, eos_token_id=6)) == 6
    assert anchor_id(WORDS) == WORDS.cls_token_id
    assert end_id(WORDS) == WORDS.sep_token_id
    assert end_id(tokenizer(eos_token_id=0, sep_token_id=6)) == 0
    with pytest.raises(DataError, match="no eos_token_id and no sep_token_id; windows need one of them"):
        end_id(tokenizer(bos_token_id=5))
    with pytest.raises(DataError, match="no bos_token_id and no eos_token_id"):
        anchor_id(tokenizer())


def test_too_little_text_is_said(tmp_path):
    file = tmp_path / "one.jsonl"
    file.write_text(json.dumps({"text": "a few words"}) + "\n")
    cfg = TextConfig(source=str(file), eval_source=str(file), max_seq_len=64)
    assert len(documents(cfg, train=True)) == 1
    with pytest.raises(DataError, match="1 documents and 1 sequences for training; a batch takes 2"):
        build_causal_dataspec(cfg, WORDS, train=True, batch_size=2, seed=0)


RECIPE = """
name: tiny
model:
  objective: causal_lm
  model_type: llama
  config: {hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 4, intermediate_size: 48}
tokenizer: {vocab_size: 300}
data: {max_seq_len: 64, eval_fraction: 0.2}
algorithms: {anchor_attention: , bf16_safe_rope: , flash_attention: }
optimizer: {lr: 3e-3}
train:
  {max_duration: 6ba, global_batch_size: 4, eval_interval: 1dur, save_interval: 3ba, progress_bar: false}
"""


def final_weights(path):
    state = torch.load(path, weights_only=False)["state"]
    return state["model"]


@pytest.mark.slow
def test_a_causal_recipe_trains_resumes_bit_for_bit_and_is_recorded(recipe, tmp_path, capsys):
    record = json.loads(run.train(recipe()).read_text())
    assert record["train"]["batches"] == 6
    assert record["eval"].keys() == {"loss", "accuracy", "unigram_entropy"}
    assert record["eval"]["loss"] < np.log(300), "six batches beat chance"
    assert "AnchorAttention(mode='anchor', reset_positions=False)" in record["surgeries"]
    assert "perplexity" in capsys.readouterr().out
    folder = tmp_path / "runs"
    half = f"train.load_path={folder}/tiny/checkpoints/ep0-ba3-rank0.pt"
    run.train(recipe("name=resumed", half))
    (whole,) = folder.glob("tiny/checkpoints/*-ba6-rank0.pt")
    (resumed,) = folder.glob("resumed/checkpoints/*-ba6-rank0.pt")
    ours, theirs = final_weights(whole), final_weights(resumed)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.slow
def test_boundaries_matter_to_training(recipe, tmp_path):
    """The anchor's run and full attention's differ: the boundaries reach the model."""
    losses = []
    for mode in ("anchor", "full"):
        options = f"algorithms.anchor_attention.mode={mode}", f"name={mode}"
        losses.append(json.loads(run.train(recipe(*options)).read_text())["eval"]["loss"])
    assert losses[0] != losses[1]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("sequence_packing", "packs rows of masked_lm, anchor_attention windows of causal_lm; leave one"),
        ("masking_schedule", "is for masked_lm; model.objective is causal_lm"),
    ],
)
def test_techniques_of_masked_models_are_refused(recipe, name, why):
    with pytest.raises(RecipeError, match=f"{name} {why}"):
        recipe(f"algorithms.{name}={{}}")


def test_objectives_are_checked(recipe):
    with pytest.raises(RecipeError, match="'causal'; did you mean 'causal_lm'"):
        recipe("model.objective=causal")
    assert recipe("model.gradient_checkpointing=true").model.gradient_checkpointing
