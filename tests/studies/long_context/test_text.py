"""Documents with keys and values in prose."""

import json
import random
import re

import pytest

from cadenza.studies.long_context import text

PROSE = [f"prose{number}" for number in range(1000)]


def made(**changes):
    asked = {"pairs": 5, "asked": 7, "filler": 40, **changes}
    return text.document(random.Random(1), PROSE, **asked)


def test_each_known_value_is_the_one_that_its_key_had_before():
    found = made()
    pairs = re.findall(r"([a-z]{4}) ([a-z]{4})\.", found.text)
    table = dict(pairs[:5])
    assert len(table) == 5
    assert len(found.known) == 7
    asked = pairs[5:]
    assert all(table[key] == value for key, value in asked)
    assert [found.text[start:end] for start, end in found.known] == [value for _, value in asked]


def test_the_prose_stands_between_the_pairs_in_its_own_order():
    words = [word for word in made().text.split() if word.startswith("prose")]
    first = int(words[0].removeprefix("prose"))
    assert words == [f"prose{first + index}" for index in range(40)]


def test_a_document_without_prose_is_pairs_alone():
    assert "prose" not in made(filler=0).text


def test_keys_are_different_and_some_values_differ():
    pairs = re.findall(r"([a-z]{4}) ([a-z]{4})\.", made(pairs=text.KEYS, asked=1).text)[: text.KEYS]
    assert len({key for key, _ in pairs}) == text.KEYS
    assert len({value for _, value in pairs}) > 4
    assert not {key for key, _ in pairs} & {value for _, value in pairs}


@pytest.mark.parametrize("window", [64, 256, 1024])
def test_training_documents_fit_their_window_roughly(window):
    rng = random.Random(0)
    lengths = [len(text.training_document(rng, PROSE, window).split()) for _ in range(300)]
    # a pair is three tokens and two words, a word of prose about 1.8 tokens
    assert max(lengths) <= window
    assert max(lengths) > window / 3
    assert min(lengths) < 30


def test_the_file_is_the_same_each_time_and_is_written_once(tmp_path):
    first = text.write(tmp_path / "a", 64, 20)
    other = text.write(tmp_path / "b", 64, 20)
    assert first.read_bytes() == other.read_bytes()
    assert len({json.loads(line)["text"] for line in first.read_text().splitlines()}) == 20
    first.write_text("kept")
    assert text.write(tmp_path / "a", 64, 20).read_text() == "kept"
    assert text.write(tmp_path / "a", 128, 20) != first
