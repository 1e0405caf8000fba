"""Trained tokenizers: functions of their text, which they keep."""

import hashlib
import json
import os
import subprocess
import sys
import unicodedata

import pytest

from cadenza.data import DataError, train_byte_bpe, train_unigram, train_wordpiece
from cadenza.data.text.vocabulary import TRAINERS

# The characters of many words occur as often as one another: ties, which the order of ids breaks.
TIES = [
    "Wel come to the Tok en izers libr ary.",
    "zyxwv utsrq ponml kjihg fedcb",
    "qaz wsx edc rfv tgb yhn ujm",
]
HINDI = "कुत्ता और बिल्ली के कू"
VIETNAMESE = "tiếng việt có nhiều dấu"
PERSIAN = "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"  # with a zero-width non-joiner
THAI = "สวัสดีครับวันนี้อากาศดีมาก"
CODE = """
import json, sys
from cadenza.data.text.vocabulary import TRAINERS
texts = json.loads(sys.argv[1])
print([train(texts, 330, low).backend_tokenizer.to_str() for train in TRAINERS.values() for low in (0, 1)])
"""


def as_words(tokenizer, text):
    """The words of `text` put together again."""
    return tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"])


def state(train, texts):
    return train(texts, 300).backend_tokenizer.to_str()


@pytest.mark.parametrize("train", TRAINERS.values())
def test_a_vocabulary_is_a_function_of_its_text(train):
    """The trainer's own hash maps differ from call to call: without an order of ids so do many of these."""
    assert len({state(train, TIES) for _ in range(20)}) == 1


@pytest.mark.slow
def test_it_is_the_same_in_every_process_with_any_number_of_threads():
    made = set()
    for threads in ("1", "2"):
        environment = {**os.environ, "RAYON_NUM_THREADS": threads, "TOKENIZERS_PARALLELISM": "true"}
        environment["PYTHONHASHSEED"] = threads
        done = subprocess.run(
            [sys.executable, "-c", CODE, json.dumps(TIES)], env=environment, capture_output=True, check=True
        )
        made.add(hashlib.sha256(done.stdout).hexdigest())
    assert len(made) == 1


@pytest.mark.parametrize(
    "text", [HINDI, VIETNAMESE, PERSIAN, "caf\u00e9 na\u00efve \u00fcber", "\u65e5 \u672c"]
)
def test_case_accents_vowel_signs_and_joiners_are_kept(text):
    for train in TRAINERS.values():
        assert as_words(train([text, text.upper()] * 3, 300), text.upper()) == text.upper()


def test_an_accent_is_the_same_in_one_character_and_in_two():
    apart = unicodedata.normalize("NFD", VIETNAMESE)
    assert apart != VIETNAMESE
    for train in (train_wordpiece, train_unigram):
        tokenizer = train([VIETNAMESE], 300)
        assert tokenizer(apart)["input_ids"] == tokenizer(VIETNAMESE)["input_ids"]


def test_long_text_without_spaces_is_known():
    """Beyond 100 characters WordPiece takes a word for unknown."""
    text = THAI * 40
    tokenizer = train_wordpiece([text], 300)
    assert tokenizer.unk_token_id not in tokenizer(text)["input_ids"]
    assert as_words(tokenizer, text).replace(" ", "") == text
    longest = tokenizer("\u0e2a" * 100, add_special_tokens=False)["input_ids"]
    assert tokenizer("\u0e2a" * 201, add_special_tokens=False)["input_ids"][: len(longest)] == longest


def test_control_characters_and_zero_width_spaces_part_words_and_marks_are_dropped():
    for train in (train_wordpiece, train_unigram):
        tokenizer = train(["one two three"], 300)
        plain = tokenizer("one two three")["input_ids"]
        assert tokenizer("one\x00two\u200bthree")["input_ids"] == plain
        assert tokenizer("\ufeffo\u00adne two\u200e three")["input_ids"] == plain


def test_a_vocabulary_holds_the_letters_of_its_text():
    text = " ".join(chr(0x4E00 + n) for n in range(400))
    for train, size in ((train_wordpiece, 405), (train_unigram, 406)):  # the mark of a space is one
        with pytest.raises(
            DataError, match=rf"^tokenizer.vocab_size is {size - 1}; the .* text alone take {size}: set"
        ):
            train([text], size - 1)
        tokenizer = train([text], size)
        assert len(tokenizer) == size
        assert tokenizer.unk_token_id not in tokenizer(text)["input_ids"]
    assert len(train_byte_bpe([text], 405)) == 405


def test_letters_within_words_are_words_not_special_tokens():
    tokenizer = train_wordpiece(["abc ##b b#c"], 300)
    assert tokenizer.all_special_ids == [1, 3, 0, 2, 4]
    assert tokenizer.tokenize("##b") == ["#", "#", "b"]
    assert set(tokenizer.get_added_vocab()) == set(tokenizer.all_special_tokens)


def test_byte_pairs_know_every_text_and_give_it_back():
    tokenizer = train_byte_bpe(TIES, 300)
    text = f"A\x00b  {HINDI}\n\t\U0001f642 {THAI * 20} ##"
    ids = tokenizer(text)["input_ids"]
    assert (ids[0], ids[-1]) == (tokenizer.cls_token_id, tokenizer.sep_token_id)
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids[1:-1]) == text


def test_files_of_a_trained_one_say_what_was_asked_for(tmp_path):
    for name, train in TRAINERS.items():
        train(TIES, 320, True, False).save_pretrained(tmp_path / name)
        config = json.loads((tmp_path / name / "tokenizer_config.json").read_text())
        options = {"name": name, "vocab_size": 320, "lowercase": True, "strip_accents": False}
        assert config["trained"] == options
