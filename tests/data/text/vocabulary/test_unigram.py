"""Unigram: pieces of scripts without spaces, and what its trainer would leave out."""

import sys
from collections import Counter

import pytest
from paths import ROOT

from cadenza.data import DataError, TokenizerConfig, build_tokenizer, train_unigram
from cadenza.data.text.vocabulary import key, unigram

WORDS = ["ตลาด", "เพื่อน", "อากาศ", "วันนี้"]
THAI = ["".join(WORDS[(n * k) % 4] for k in range(7)) for n in range(1, 40)]


def test_pieces_are_words_of_a_script_without_spaces():
    """They hold more than a word where the words always stand together; here they don't."""
    tokens = train_unigram(THAI, 300).tokenize("".join(WORDS))
    assert "".join(tokens) == "▁" + "".join(WORDS)
    assert len(tokens) <= 2 * len(WORDS)


def test_no_piece_holds_a_space_or_two_scripts():
    tokens = train_unigram(["in Tokyo東京, in Tokyo東京"] * 9, 300).get_vocab()
    assert any(len(token) > 2 for token in tokens if "[" not in token)
    for token in tokens:
        assert "▁" not in token[1:]
        assert len({c.isascii() for c in token.removeprefix("▁")}) <= 1


def test_the_size_is_the_one_asked_for_where_the_text_has_so_many_pieces():
    assert len(train_unigram([(ROOT / "docs/decisions.md").read_text()], 300)) == 300
    assert len(train_unigram(["ab"], 300)) < 300


def test_any_white_space_is_a_space():
    tokenizer = train_unigram(["one two three"], 300)
    spaces = tokenizer("one two three")["input_ids"]
    assert tokenizer("one\u3000two\u00a0three")["input_ids"] == spaces
    assert tokenizer("one\ntwo\u2028three")["input_ids"] == spaces


def test_special_tokens_have_the_first_ids_and_frame_a_text():
    tokenizer = train_unigram(THAI, 300)
    assert tokenizer.convert_ids_to_tokens(range(5)) == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    ids = tokenizer(WORDS[0])["input_ids"]
    assert (ids[0], ids[-1]) == (tokenizer.cls_token_id, tokenizer.sep_token_id)
    assert tokenizer.tokenize("[MASK]" + WORDS[0])[0] == "[MASK]"


def test_long_words_and_reserved_characters_are_learned_from_all_the_same():
    """SentencePiece leaves out lines of more than 4,192 bytes, and those with a block that it reserves."""
    long = "".join(THAI * 9)
    for text in (long, f"{unigram.RESERVED}{THAI[0]}"):
        tokenizer = train_unigram([text], 300)
        assert tokenizer.unk_token_id not in tokenizer(THAI[0])["input_ids"]
    assert tokenizer.unk_token_id in tokenizer(unigram.RESERVED)["input_ids"]


def test_words_are_counted_over_documents():
    normalizer = unigram._normalizer(False, False)
    assert unigram._words(["a b", " b\tb "], normalizer) == Counter({"▁b": 3, "▁a": 1})
    parts = unigram._words(["c" * 1500], normalizer)
    assert parts == Counter({"▁" + "c" * 999: 1, "c" * 501: 1})


def test_text_without_a_word_is_an_error():
    with pytest.raises(DataError, match=r"^tokenizer.name: there is no text to train unigram on$"):
        train_unigram(["", " \n"], 300)


def test_without_sentencepiece_the_error_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    cfg = TokenizerConfig("unigram", 300, cache_dir=str(tmp_path))
    with pytest.raises(DataError, match=r"^tokenizer.name: unigram needs sentencepiece, .* pip install 'cad"):
        build_tokenizer(cfg, lambda: THAI)


def test_a_kept_one_is_found_by_its_trainers_version():
    assert {"tokenizers", "sentencepiece"} <= key(TokenizerConfig("unigram")).keys()
    assert "sentencepiece" not in key(TokenizerConfig("wordpiece"))
