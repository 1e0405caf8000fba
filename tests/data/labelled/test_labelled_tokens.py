"""The tokens of labelled examples: pairs, what is cut, and examples that a tokenizer doesn't know."""

from dataclasses import replace

import pytest
from labelled_files import bert, examples, gpt2, roberta

from cadenza.data import DataError, LabelledConfig, build_labelled_dataspec
from cadenza.data.labelled import tokens as encoding
from cadenza.data.labelled.sets import Example
from cadenza.data.labelled.tokens import LabelledEncoder


def encoded(found, tokenizer, limit=64, paired=False, skip=False):
    encoder = LabelledEncoder(tokenizer, limit, paired)
    kept, tokens = encoder(found, skip, "here")
    return encoder, kept, tokens


def words(tokenizer, tokens):
    return " ".join(tokenizer.convert_ids_to_tokens(tokens.ids.tolist()))


def test_a_text_and_a_pair():
    tokenizer, example = bert(), Example("w1 w2", "w3", 0, "row 1")
    _, _, (alone,) = encoded([example], tokenizer)
    assert words(tokenizer, alone) == "[CLS] w1 w2 [SEP]"
    _, _, (pair,) = encoded([example], tokenizer, paired=True)
    assert words(tokenizer, pair) == "[CLS] w1 w2 [SEP] w3 [SEP]"
    assert pair.types.tolist() == [0, 0, 0, 0, 1, 1]
    _, _, (pair,) = encoded([example], roberta(), paired=True)
    assert words(roberta(), pair) == "<s> w 1 Ġ w 2 </s> </s> w 3 </s>"
    assert pair.types is None


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_longer_text_is_cut_first(side):
    tokenizer = bert(truncation_side=side)
    _, _, found = encoded([Example("w1 w2 w3 w4 w5", "w6 w7", 0, "")], tokenizer, limit=7, paired=True)
    kept = "w1 w2" if side == "right" else "w4 w5"
    assert words(tokenizer, found[0]) == f"[CLS] {kept} [SEP] w6 w7 [SEP]"


@pytest.mark.parametrize("make", [bert, roberta])
@pytest.mark.parametrize("paired", [False, True])
def test_the_tokens_are_those_of_the_tokenizers_own_call(make, paired):
    tokenizer, found = make(), examples(24, paired)
    encoder, _, tokens = encoded(found, tokenizer, limit=16, paired=paired)
    for example, each in zip(found, tokens, strict=True):
        pair = example.pair if paired else None
        plain = tokenizer(example.text, pair, truncation=True, max_length=16)
        assert each.ids.tolist() == plain["input_ids"]
        assert (None if each.types is None else each.types.tolist()) == plain.get("token_type_ids")
        assert each.cut == (len(tokenizer(example.text, pair)["input_ids"]) > 16)
    assert encoder.cut == sum(each.cut for each in tokens) > 0


def test_batches_of_the_tokenizer_keep_the_order(monkeypatch):
    found = examples(24)
    plain = [each.ids.tolist() for each in encoded(found, bert())[2]]
    monkeypatch.setattr(encoding, "BATCH", 5)
    assert [each.ids.tolist() for each in encoded(found, bert())[2]] == plain


def test_a_progress_bar_of_many(monkeypatch, capsys):
    encoded(examples(20), bert())
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(encoding, "SHOWN", 20)
    encoded(examples(20), bert())
    assert "tokenizing: 100%" in capsys.readouterr().err
    monkeypatch.setattr(encoding.dist, "get_global_rank", lambda: 1)
    encoded(examples(20), bert())
    assert capsys.readouterr().err == "", "on the first rank alone"


def test_how_many_were_cut_is_said_once(capsys):
    found, cfg = examples(20), LabelledConfig(max_seq_len=12)
    for train, part in ((True, "training"), (False, "evaluation")):
        build_labelled_dataspec(found, bert(), cfg, train=train, batch_size=4, seed=1)
        said = f"10 of 20 examples for {part} (50.0%) are cut to data.max_seq_len, 12 tokens\n"
        assert capsys.readouterr().out == said
    build_labelled_dataspec(found, bert(), replace(cfg, max_seq_len=22), train=True, batch_size=4, seed=1)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("paired", "pair"), [(False, None), (True, "\u200b")])
def test_an_example_without_a_token_is_bad(paired, pair, capsys):
    """A zero-width space is no white space to Python; BERT's tokenizer leaves it out."""
    found = [*examples(8, paired), Example("\u200b", pair, 1, "a.csv line 9")]
    said = r"^data\.text_field: a\.csv line 9 has no token to the tokenizer$"
    with pytest.raises(DataError, match=said):
        encoded(found, bert(), paired=paired)
    _, kept, tokens = encoded(found, bert(), paired=paired, skip=True)
    assert kept == found[:8]
    assert len(tokens) == 8
    assert (
        "here: 1 of 9 rows are bad and left out; the first: data.text_field: a.csv" in capsys.readouterr().out
    )


def test_unknown_text_is_refused_above_half():
    known, unknown = Example("w1 w2", None, 0, ""), Example("what is", None, 0, "")
    encoder, _, _ = encoded([known, unknown], bert())
    assert encoder.unknown_share == 0.5
    said = r"^tokenizer\.name: 67% of the tokens of the first 3 examples are \[UNK\], unknown words; name one"
    with pytest.raises(DataError, match=said):
        encoded([known, unknown, unknown], bert())
    spec = build_labelled_dataspec(
        [known, unknown], bert(), LabelledConfig(), train=True, batch_size=2, seed=1
    )
    assert spec.dataloader.dataset.unknown_share == 0.5


def test_the_least_length():
    for paired, least in ((False, 3), (True, 5)):
        encoded(examples(3, paired), bert(), limit=least, paired=paired)
        said = rf"^data\.max_seq_len is {least - 1}; an example with special tokens takes {least} at least$"
        with pytest.raises(DataError, match=said):
            encoded(examples(3, paired), bert(), limit=least - 1, paired=paired)


def test_a_pair_needs_a_token_between_its_texts():
    encoded(examples(3), gpt2())
    with pytest.raises(
        DataError, match=r"^tokenizer\.name: it puts no token between the texts of a pair; join"
    ):
        encoded(examples(3, paired=True), gpt2(), paired=True)
