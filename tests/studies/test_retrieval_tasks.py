"""The tasks of the study of retrieval: what each asks, by its text, and the largest example that fits."""

import random
import re
from collections import Counter

import pytest
from words import Characters

from cadenza.studies import retrieval_tasks
from cadenza.studies.retrieval import score
from cadenza.studies.retrieval_tasks import NOISE, TASKS, fitted


@pytest.mark.parametrize("task", TASKS)
def test_tasks_fit_their_length_and_hold_their_answer(task):
    for seed in range(3):
        example = fitted(task, 12_000, Characters(), seed)
        assert 12_000 * 0.7 < len(example.prompt) + example.answer_tokens < 12_000
        assert all(each in example.prompt for each in example.expected)
        assert example == fitted(task, 12_000, Characters(), seed)
        assert score(" ".join(example.expected), example.expected) == 1.0
        assert score("", example.expected) == 0.0
    with pytest.raises(ValueError, match="doesn't fit 40 tokens"):
        fitted(task, 40, Characters(), 0)


def test_every_task_and_seed_has_its_own_draws():
    made = [fitted(task, 12_000, Characters(), seed) for task in TASKS for seed in range(3)]
    assert len({example.prompt for example in made}) == len(made)
    values = [made[3 * k].expected[0] for k, task in enumerate(TASKS) if task[:4] in ("key_", "niah")]
    assert len(set(values)) == 4


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 8, 9])
def test_the_largest_example_fits_exactly(size):
    """Prompt, answer and the anchor; with a token less it is the next smaller one."""

    def made(size):
        return TASKS["niah_single_1"](random.Random("niah_single_1 0"), size)

    length = len(made(size).prompt) + 32 + 1
    assert fitted("niah_single_1", length, Characters(), 0) == made(size)
    if size > 1:
        assert fitted("niah_single_1", length - 1, Characters(), 0) == made(size - 1)
    else:
        with pytest.raises(ValueError, match=f"niah_single_1 doesn't fit {length - 1} tokens"):
            fitted("niah_single_1", length - 1, Characters(), 0)


def examples(make, size, count=300):
    return [make(random.Random(seed), size) for seed in range(count)]


def test_words_and_numbers():
    draw = random.Random(0)
    words = [retrieval_tasks.word(draw) for _ in range(2000)]
    assert all(re.fullmatch("([bdfgklmnprstvz][aeiou]){4}", word) for word in words)
    assert len(set(words)) > 1990
    assert set("".join(words)) == set("bdfgklmnprstvzaeiou")
    numbers = [int(retrieval_tasks.number(draw)) for _ in range(5000)]
    assert all(10**6 <= number < 10**7 for number in numbers)
    assert min(numbers) < 1_010_000
    assert max(numbers) > 9_990_000


def test_numbers_reach_both_ends():
    class Ends:
        def __init__(self, last):
            self.last = last

        def randint(self, low, high):
            return high if self.last else low

    assert [retrieval_tasks.number(Ends(last)) for last in (False, True)] == ["1000000", "9999999"]


def test_one_value_out_of_a_table():
    asked = set()
    for example in examples(TASKS["key_value"], 5):
        first, *lines, last = example.prompt.splitlines()
        assert first == "Each line holds a key and its value."
        table = [re.fullmatch(r"(\w{8}): (\d{7})", line).groups() for line in lines]
        assert len(dict(table)) == 5
        key = re.fullmatch(r"The value of (\w+) is: \1:", last)[1]
        assert example.expected == (dict(table)[key],)
        assert example.answer_tokens == 32
        asked.add([key for key, _ in table].index(key))
    assert asked == set(range(5))


NEEDLE = r"One of the special magic numbers for (\S+) is: (\S+)\."


def niah(example):
    """The lines of the haystack, and the key that is asked for."""
    first, *lines, last = example.prompt.splitlines()
    assert first == "A special magic number is hidden in the following text. Memorize it."
    asked = re.fullmatch(
        r"What is the special magic number for (\S+) mentioned in the text\? "
        r"The special magic number for \1 mentioned in the text is",
        last,
    )
    return lines, asked[1]


def test_a_needle_in_noise_may_stand_anywhere():
    places = set()
    for example in examples(TASKS["niah_single_1"], 3):
        lines, key = niah(example)
        (place,) = (i for i, line in enumerate(lines) if line != NOISE)
        assert len(lines) == 4
        assert re.fullmatch(NEEDLE, lines[place]).groups() == (key, *example.expected)
        assert re.fullmatch(r"\d{7}", example.expected[0])
        assert re.fullmatch(r"[a-z]{8}", key)
        assert example.answer_tokens == 32
        places.add(place)
    assert places == {0, 1, 2, 3}
    assert NOISE.startswith("The grass is green. The sky is blue. The sun is yellow.")


HEX = "[0-9a-f]"
IDENTIFIER = f"{HEX}{{8}}-{HEX}{{4}}-{HEX}{{4}}-{HEX}{{12}}"


@pytest.mark.parametrize(
    ("task", "key", "value", "tokens"),
    [
        ("niah_multikey_2", "[a-z]{8}", r"\d{7}", 32),
        ("niah_multikey_3", IDENTIFIER, IDENTIFIER, 48),
    ],
)
def test_a_needle_among_needles(task, key, value, tokens):
    asked = set()
    for example in examples(TASKS[task], 4):
        lines, wanted = niah(example)
        needles = [re.fullmatch(NEEDLE, line).groups() for line in lines]
        assert len(dict(needles)) == 4
        assert all(re.fullmatch(key, k) and re.fullmatch(value, v) for k, v in needles)
        assert example.expected == (dict(needles)[wanted],)
        assert example.answer_tokens == tokens
        asked.add([k for k, _ in needles].index(wanted))
    assert asked == {0, 1, 2, 3}


def test_identifiers_are_of_all_digits():
    (example,) = examples(TASKS["niah_multikey_3"], 50, 1)
    assert set(example.prompt) >= set("0123456789abcdef")


def test_a_chain_of_variables_in_noise():
    first, last, values = set(), set(), set()
    for example in examples(TASKS["vt"], 6):
        start, *lines, asked = example.prompt.splitlines()
        assert start == "Memorize and track the chain of variable assignments in the text."
        assert lines.count(NOISE) == 6
        assert len(lines) == 11
        value = re.fullmatch(
            r"Find all variables that are assigned the value (\d{5}) in the text above. "
            "Answer: they are 5 variables:",
            asked,
        )[1]
        steps = [(i, line) for i, line in enumerate(lines) if line != NOISE]
        names = example.expected
        assert len(set(names)) == 5
        assert all(re.fullmatch("[A-Z]{5}", name) for name in names)
        assert [line for _, line in steps] == [
            f"VAR {name} = {source}"
            for name, source in zip(names, (value, *(f"VAR {n}" for n in names)), strict=False)
        ]
        assert example.answer_tokens == 32
        first.add(steps[0][0])
        last.add(10 - steps[-1][0])
        values.add(int(value))
    assert {0, 1, 2} <= first
    assert {0, 1, 2} <= last
    assert min(values) >= 10_000
    assert max(values) > 90_000


def test_chains_have_no_name_twice():
    class Repeats(random.Random):
        """Draws each name of a chain twice in a row."""

        names = 0

        def choice(self, letters):
            self.names += 1
            return letters[(self.names - 1) // 10 % 26]

    example = TASKS["vt"](Repeats(0), 3)
    assert example.expected == ("AAAAA", "BBBBB", "CCCCC", "DDDDD", "EEEEE")


def words_of(example, asked):
    first, text, last = example.prompt.splitlines()
    assert first == "Memorize the words in this list."
    assert last == f"{asked} Answer:"
    numbered = re.findall(r"(\d+)\. (\w+)", text)
    assert [int(n) for n, _ in numbered] == list(range(1, len(numbered) + 1))
    assert text == " ".join(f"{n}. {w}" for n, w in numbered)
    assert example.answer_tokens == 64
    return [word for _, word in numbered]


def test_ten_words_come_thirty_times_and_the_others_three():
    (example,) = examples(retrieval_tasks.common_words, 40, 1)
    words = words_of(example, "What are the 10 most common words in the above list?")
    counts = Counter(words)
    assert Counter(counts.values()) == {30: 10, 3: 40}
    assert set(example.expected) == {word for word, count in counts.items() if count == 30}
    assert len(set(words[:20])) > 5, "shuffled"


def test_frequencies_fall_with_the_square_of_the_rank():
    (example,) = examples(retrieval_tasks.frequent_words, 1000, 1)
    words = words_of(example, "What are the three most frequently appeared words in the above list?")
    counts = [count for _, count in Counter(words).most_common()]
    assert counts[:6] == [600, 150, 67, 38, 24, 17]  # 600 / rank^2
    assert len(counts) == 200
    assert counts[40:] == [1] * 160, "none is left out"
    assert list(example.expected) == [word for word, _ in Counter(words).most_common(3)]
    assert len(set(words[:100])) > 10, "shuffled"
