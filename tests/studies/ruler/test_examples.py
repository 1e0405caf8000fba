"""Examples are the largest that fit, and depend on task, length, seed and number alone."""

import random

import pytest
from words import Characters

from cadenza.studies.ruler.examples import Examples, LeftOut
from cadenza.studies.ruler.material import Material
from cadenza.studies.ruler.questions import Question, Questions
from cadenza.studies.ruler.tasks.example import Draw, all_of
from cadenza.studies.ruler.tasks.table import QUESTIONS, TASKS

PARAGRAPHS = [f"Paragraph {n} says that the answer is {n * n}. " * 3 for n in range(120)]
ASKED = Questions([Question(f"What of {n}?", (str(n * n),), (n,)) for n in range(120)], PARAGRAPHS, "")
MATERIAL = Material(
    (" ".join(f"sentence {n} of a text." for n in range(900)),), dict.fromkeys(QUESTIONS, ASKED)
)
LONG = 9000


def examples(count=2):
    return Examples(Characters(), MATERIAL, count)


@pytest.mark.parametrize("task", TASKS)
def test_examples_fill_their_length_and_hold_their_answers(task):
    made = examples()
    for example in made.of(task, LONG, 0):
        assert 0.9 * LONG < made.tokens(task, example) <= LONG
        assert made.tokens(task, example) == 1 + len(example.prompt) + TASKS[task].answer_tokens
        assert all_of(example.prompt, example.expected) == 1.0
        assert TASKS[task].score(" ".join(example.expected), example.expected) == 1.0


@pytest.mark.parametrize("task", TASKS)
def test_each_seed_and_number_has_its_own_draws(task):
    made = [e.prompt for seed in (0, 1) for e in examples().of(task, LONG, seed)]
    assert len(set(made)) == 4
    assert made == [e.prompt for seed in (0, 1) for e in examples(3).of(task, LONG, seed)[:2]]


@pytest.mark.parametrize("length", range(900, 990, 7))
def test_the_next_larger_example_doesn_t_fit(length):
    """Prompt, answer and the anchor; the size is that of a line of noise."""

    def made(size):
        rng = random.Random(f"niah_single_1 {length} 0 0")
        return TASKS["niah_single_1"].make(Draw(rng, size, length, MATERIAL))

    (example,) = examples(1).of("niah_single_1", length, 0)
    lines = example.prompt.count("The grass is green.")
    assert example == made(lines)
    assert 1 + len(made(lines).prompt) + 128 <= length < 1 + len(made(lines + 1).prompt) + 128


def test_what_doesn_t_fit_is_left_out_with_its_size():
    with pytest.raises(LeftOut, match=r"key_value takes \d\d+ tokens at least, and 40 are asked for"):
        examples().of("key_value", 40, 0)


def test_a_task_whose_paragraphs_don_t_fill_the_length_is_left_out():
    made = examples()
    whole = sum(map(len, PARAGRAPHS))
    assert made.of("qa_1", whole - 500, 0)
    with pytest.raises(LeftOut, match=f"qa_1: its file has too few paragraphs for {2 * whole} tokens"):
        made.of("qa_1", 2 * whole, 0)


def test_examples_are_kept():
    made = examples()
    assert made.of("vt", 4000, 0) is made.of("vt", 4000, 0)
