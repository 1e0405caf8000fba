"""What is unknown to a tokenizer is said before training, of whole sources and of streams."""

import json

import pytest
from words import TEXTS, asked  # noqa: F401

from cadenza.data import DataError, TextConfig, build_causal_dataspec, build_dataspec, train_wordpiece
from cadenza.data.survey.unknown_share import first_share, unknown_line
from cadenza.data.text.vocabulary import TRAINERS

BUILD = {"masked": build_dataspec, "causal": build_causal_dataspec}


def line(cfg, tokenizer, kind="masked"):
    specs = (BUILD[kind](cfg, tokenizer, train=train, batch_size=1, seed=0) for train in (True, False))
    return unknown_line(tokenizer, cfg, *specs)


@pytest.fixture
def files(tmp_path):
    for name, texts in (("train", ["a b c d"] * 4), ("eval", ["a b c \u1202\u120e"] * 2)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
    return TextConfig(source=f"{tmp_path}/train.jsonl", eval_source=f"{tmp_path}/eval.jsonl", max_seq_len=16)


@pytest.mark.parametrize("kind", BUILD)
@pytest.mark.parametrize("name", TRAINERS)
def test_text_outside_of_training_is_measured_for_each_kind(files, name, kind):
    found = line(files, TRAINERS[name](["a b c d"] * 4, 300), kind)
    # In so little text the space is a piece of its own to a unigram model.
    shares = {"wordpiece": "25.00%", "byte_bpe": None, "unigram": "12.50%"}[name]
    assert found == (shares and f"unknown to the tokenizer ([UNK]): {shares} of the tokens for evaluation")


@pytest.mark.parametrize("kind", BUILD)
def test_the_first_documents_of_a_stream_are_measured(asked, kind):  # noqa: F811
    cfg = TextConfig(source="c4", eval_documents=9, max_seq_len=16, shuffle_buffer=7)
    assert line(cfg, train_wordpiece(TEXTS, 300), kind) is None
    tokenizer = train_wordpiece(
        ["".join(sorted(set("".join(TEXTS)) - {"7"})) + " " + "abcdefghijklmnop"], 300
    )
    found = line(cfg, tokenizer, kind)
    assert found.count("of the tokens of the first 1,000 documents for") == 2
    assert f"{first_share(tokenizer, cfg, True):.2%}" in found


def test_a_stream_of_unknown_words_is_refused_before_training(asked):  # noqa: F811
    cfg = TextConfig(source="c4", max_seq_len=16)
    with pytest.raises(
        DataError, match=r"^tokenizer.name: 100% of the tokens of the first 40 documents are "
    ):
        line(cfg, train_wordpiece(["\u1202\u120e"], 300))
