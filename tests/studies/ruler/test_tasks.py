"""What each task asks, by the text of its prompts."""

import random
import re
from collections import Counter

import pytest

from cadenza.studies.ruler.material import Material
from cadenza.studies.ruler.tasks.example import Draw, all_of, any_of
from cadenza.studies.ruler.tasks.needles import DEPTHS, NOISE
from cadenza.studies.ruler.tasks.table import QUESTIONS, RULER, TASKS

SENTENCES = [f"This sentence about things has number {n}." for n in range(500)]
MATERIAL = Material((" ".join(SENTENCES), "plain words again " * 3))
IDENTIFIER = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}"
NUMBER = r"\d{7}"
NEEDLE = r"One of the special magic (\w+) for (\S+) is: (\S+)\."


def made(task, size, seed=0, length=1024):
    return TASKS[task].make(Draw(random.Random(seed), size, length, MATERIAL))


def needles(example):
    """(kind, key, value) of each needle, in the order of the text."""
    return re.findall(NEEDLE, example.prompt)


def test_the_table_has_the_paper_s_thirteen_tasks():
    assert len(RULER) == 13
    assert [name for name in TASKS if name not in RULER] == ["key_value"]
    assert {name: task.answer_tokens for name, task in RULER.items() if name[:4] != "niah"} == {
        **{"vt": 30, "cwe": 120, "fwe": 50},
        **dict.fromkeys(QUESTIONS, 32),
    }
    assert {task.answer_tokens for name, task in RULER.items() if name[:4] == "niah"} == {128}


def test_scores_of_all_and_of_any():
    expected = ("alpha", "Beta", "gamma", "delta")
    assert all_of("It is ALPHA, then beta.", expected) == 0.5
    assert any_of("It is ALPHA.", expected) == 1.0
    assert any_of("epsilon", expected) == all_of("epsilon", expected) == 0.0
    assert all_of("123", ("1234",)) == 0.0
    assert {name for name, task in TASKS.items() if task.score is any_of} == set(QUESTIONS)


@pytest.mark.parametrize(
    ("task", "haystack", "key", "value", "keys", "values", "asked"),
    [
        ("niah_single_1", "noise", "word", NUMBER, 1, 1, 1),
        ("niah_single_2", "prose", "word", NUMBER, 1, 1, 1),
        ("niah_single_3", "prose", "word", IDENTIFIER, 1, 1, 1),
        ("niah_multikey_1", "prose", "word", NUMBER, 4, 1, 1),
        ("niah_multikey_2", "needles", "word", NUMBER, 31, 1, 1),
        ("niah_multikey_3", "needles", IDENTIFIER, IDENTIFIER, 31, 1, 1),
        ("niah_multivalue", "prose", "word", NUMBER, 1, 4, 1),
        ("niah_multiquery", "prose", "word", NUMBER, 4, 1, 4),
    ],
)
def test_needles_are_as_many_as_in_the_paper(task, haystack, key, value, keys, values, asked):
    example = made(task, 30 if haystack != "prose" else 400)
    found = needles(example)
    key = r"[a-z]{4,12}-[a-z]{4,12}" if key == "word" else key
    kinds = {"numbers"} if value == NUMBER else {"identifiers"}
    assert {kind for kind, *_ in found} == kinds
    assert len({name for _, name, _ in found}) == keys
    assert len(found) == keys * values
    assert all(re.fullmatch(key, name) and re.fullmatch(value, held) for _, name, held in found)
    last = example.prompt.splitlines()[-1]
    wanted = [name for name in dict.fromkeys(name for _, name, _ in found) if name in last]
    assert len(wanted) == asked
    assert set(example.expected) == {held for _, name, held in found if name in wanted}
    assert example.prompt.count(NOISE) == (30 if haystack == "noise" else 0)
    assert example.prompt.endswith(" are" if asked * values > 1 else " is")


def test_keys_of_a_question_are_in_the_order_of_the_answers():
    example = made("niah_multiquery", 300)
    names = re.search(r"numbers for (\S+), (\S+), (\S+), and (\S+) mentioned", example.prompt).groups()
    values = {name: value for _, name, value in needles(example)}
    assert example.expected == tuple(values[name] for name in names)


def test_a_needle_among_lines_may_stand_anywhere():
    for task, size in (("niah_single_1", 3), ("niah_multikey_2", 3)):
        places = set()
        for seed in range(60):
            example = made(task, size, seed)
            lines = example.prompt.splitlines()[1:-1]
            assert len(lines) == 4
            places |= {n for n, line in enumerate(lines) if example.expected[0] in line}
        assert places == {0, 1, 2, 3}, task


def test_needles_in_prose_have_depths_of_forty():
    assert len(set(DEPTHS)) == 40
    assert (min(DEPTHS), max(DEPTHS)) == (0, 100)
    depths = set()
    for seed in range(200):
        text = made("niah_single_2", 1000, seed).prompt.split("\n")[1]
        before = text[: text.index("One of the special")].count(". ")
        depths.add(round(100 * before / (text.count(". ") - 1), -1))
    assert depths == set(range(0, 101, 10))


def test_prose_begins_anywhere_and_goes_on_at_its_end():
    starts = {made("niah_single_2", 50, seed).prompt.split("\n")[1][:40] for seed in range(20)}
    assert len(starts) > 10
    text = MATERIAL.prose(random.Random(1), 2 * 7 * 500)
    assert text.count("has number 3.") == 2


@pytest.mark.parametrize(("length", "shown"), [(128, 5), (512, 8), (1024, 16), (8192, 16)])
def test_a_chain_of_variables_comes_after_a_solved_one(length, shown):
    example = made("vt", 6, length=length)
    solved, asked = example.prompt.rsplit("\n\nMemorize", 1)
    for text, lines, letters, names in (
        (solved, shown, 3, tuple(solved.split(": ")[-1].removeprefix("they are ").split()[-5:])),
        (asked, 10, 5, example.expected),
    ):
        assert text.count(NOISE) == lines
        steps = re.findall(r"^VAR (\w+) = (?:VAR )?(\w+)$", text, re.M)
        value = re.search(r"assigned the value (\d{5}) in", text)[1]
        assert steps == list(zip(names, (value, *names), strict=False))
        assert len(set(names)) == 5
        assert all(re.fullmatch(f"[A-Z]{{{letters}}}", name) for name in names)
    assert not set(example.expected) & set(solved.split())


def numbered(text):
    found = re.findall(r"(\d+)\. (\w+)", text)
    assert [int(number) for number, _ in found] == list(range(1, len(found) + 1))
    return Counter(word for _, word in found)


@pytest.mark.parametrize(
    ("length", "solved", "asked"),
    [(1024, {3: 10, 1: 10}, {6: 10, 1: 40}), (4096, {10: 10, 3: 30}, {30: 10, 3: 40})],
)
def test_common_words_come_as_often_as_in_the_paper(length, solved, asked):
    example = made("cwe", 40, length=length)
    pattern = r"Below.*\n(.*)\nQuestion.*?are: (.*)\nBelow.*\n(.*)\nQuestion.*are:"
    first, answer, second = re.fullmatch(pattern, example.prompt).groups()
    assert Counter(numbered(first).values()) == solved
    assert Counter(numbered(second).values()) == asked
    assert set(numbered(answer)) == {w for w, times in numbered(first).items() if times == max(solved)}
    assert set(example.expected) == {w for w, times in numbered(second).items() if times == max(asked)}
    assert set(list(numbered(second))[:20]) != set(example.expected), "shuffled"


def test_frequencies_fall_with_the_square_of_the_rank():
    example = made("fwe", 1000 - 80, length=4096)
    text = re.search(r"most often\. (.*?)\nQuestion", example.prompt)[1].split()
    counts = Counter(text).most_common()
    assert [count for _, count in counts[:5]] == [607, 151, 67, 37, 24]  # 1000 / (zeta(2) rank^2)
    assert [word for word, _ in counts[:4]] == ["...", *example.expected]
    assert all(re.fullmatch("[a-z]{6}", word) for word, _ in counts[1:])
    assert len(set(text[:50])) > 5, "shuffled"


@pytest.mark.parametrize("size", [1, 2, 5, 40])
def test_the_third_frequent_word_is_never_a_tie(size):
    text = re.search(r"most often\. (.*?)\nQuestion", made("fwe", size).prompt)[1].split()
    counts = [count for _, count in Counter(text).most_common()]
    assert counts[3] > counts[4]


def test_one_value_out_of_a_table():
    asked = set()
    for seed in range(100):
        example = made("key_value", 5, seed)
        table = re.findall(r"^(\w+): (\d{7})$", example.prompt, re.M)
        key = re.search(r"The value of (\w+) is: \1:$", example.prompt)[1]
        assert len(dict(table)) == 5
        assert example.expected == (dict(table)[key],)
        asked.add([name for name, _ in table].index(key))
    assert asked == set(range(5))


def test_words_are_of_the_prose_and_made_up_where_it_has_few():
    words = MATERIAL.vocabulary
    assert words[:8] == ["about", "again", "number", "plain", "sentence", "things", "words", words[7]]
    assert len(set(words)) == 1000
    assert all(re.fullmatch("([bdfgklmnprstvz][aeiou]){4}", word) for word in words[7:])
    many = MATERIAL.words(random.Random(0), 3000)
    assert len(set(many)) == 3000
