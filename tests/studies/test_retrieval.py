"""The study of retrieval: what each task asks, by its text; the largest example; how answers are scored."""

import random
import re
import sys
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from families import build

from cadenza.studies import report, retrieval, retrieval_tasks
from cadenza.studies.retrieval import score
from cadenza.studies.retrieval_tasks import NOISE, TASKS, Example, fitted


class Characters:
    """A tokenizer of one token a character."""

    bos_token_id, eos_token_id = 1, 2

    def __call__(self, text, **options):
        if not options:
            return {"input_ids": list(text)}
        assert options == {"add_special_tokens": False, "return_tensors": "pt"}
        return {"input_ids": torch.tensor([[3 + ord(c) % 80 for c in text]])}

    def decode(self, ids, skip_special_tokens):
        assert skip_special_tokens
        return "".join(chr(97 + int(i) % 26) for i in ids)


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


def test_the_share_of_what_was_expected():
    assert score("It is ALPHA, then gamma.", ("alpha", "beta", "Gamma", "delta")) == 0.5
    assert score("123", ("1234",)) == 0.0


def test_an_answer_goes_on_behind_the_anchor():
    seen = {}

    class Model:
        device = torch.device("cpu")

        def generate(self, ids, **options):
            assert not torch.is_grad_enabled()
            seen.update(ids=ids, **options)
            return torch.cat([ids, torch.tensor([[7, 8, 9]])], dim=1)

    answer = retrieval.answer_of(Model(), Characters(), Example("ab", ("x",), 5))
    assert answer == "hij"
    assert seen["ids"].tolist() == [[1, 3 + 97 % 80, 3 + 98 % 80]]
    assert seen["attention_mask"].tolist() == [[1, 1, 1]]
    rest = {name: seen[name] for name in ("max_new_tokens", "do_sample", "pad_token_id")}
    assert rest == {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 2}

    class Qwen(Characters):
        bos_token_id = None

    retrieval.answer_of(Model(), Qwen(), Example("ab", ("x",), 5))
    assert seen["ids"][0, 0] == 2, "without BOS it is EOS"


def test_scores_are_means_over_the_examples(monkeypatch, capsys):
    """The model knows the answer to every second example of one task."""
    asked = []

    def answer_of(model, tokenizer, example):
        asked.append(example)
        right = len(asked) % 2 and "value" in example.prompt
        return f"It is {example.expected[0]}." if right else ""

    monkeypatch.setattr(retrieval, "answer_of", answer_of)
    rows = retrieval.evaluate(None, Characters(), ["key_value", "niah_single_1", "cwe"], [600, 700], 4)
    assert rows == [
        {"task": task, "length": length, "score": value, "examples": 4}
        for task, value in (("key_value", 0.5), ("niah_single_1", 0.0))
        for length in (600, 700)
    ]
    assert asked[:4] == [fitted("key_value", 600, Characters(), seed) for seed in range(4)]
    assert asked[4:8] == [fitted("key_value", 700, Characters(), seed) for seed in range(4)]
    assert "left out: cwe doesn't fit 600 tokens" in capsys.readouterr().out


def test_scores_of_a_model():
    """Greedy, so that its answers are those of a plain loop."""
    model = build("llama", max_position_embeddings=4096)
    (row,) = retrieval.evaluate(model, Characters(), ["key_value"], [600], 1)
    example = fitted("key_value", 600, Characters(), 0)
    ids = [1, *(3 + ord(c) % 80 for c in example.prompt)]
    with torch.no_grad():
        for _ in range(3):
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    answer = retrieval.answer_of(model, Characters(), example)
    assert answer.startswith(Characters().decode(ids[-3:], skip_special_tokens=True))
    assert row["score"] == score(answer, example.expected)


@pytest.fixture
def called(monkeypatch):
    """Run the command line without a model: what was evaluated, loaded and written."""

    def called(*options, rows=("row",)):
        seen = SimpleNamespace(written=[])

        class Model:
            def to(self, device):
                seen.device = device
                return self

            def eval(self):
                seen.eval = True
                return self

        def from_pretrained(folder, **options):
            seen.folder, seen.options = folder, options
            return Model()

        def evaluate(model, tokenizer, *asked):
            seen.models, seen.asked = (type(model).__name__, tokenizer), asked
            return list(rows)

        monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", from_pretrained)
        monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", lambda folder: f"words of {folder}")
        monkeypatch.setattr("torch.cuda.is_available", lambda: False)
        monkeypatch.setattr(retrieval, "safe_weights", lambda: {"use_safetensors": True})
        monkeypatch.setattr(retrieval, "evaluate", evaluate)
        monkeypatch.setattr(report, "write", lambda *given, **more: seen.written.append((given, more)))
        monkeypatch.setattr(sys, "argv", ["retrieval", *options])
        retrieval.main()
        return seen

    return called


def test_the_command_line_and_its_defaults(called):
    seen = called("--model", "folder", "--out", "there")
    assert seen.asked == (list(TASKS), [512, 1024, 2048], 20)
    assert (seen.folder, seen.device, seen.eval) == ("folder", "cpu", True)
    assert seen.options == {"dtype": torch.float32, "use_safetensors": True}
    assert seen.models == ("Model", "words of folder")
    ((given, more),) = seen.written
    assert [str(given[0]), *given[1:]] == ["there", "retrieval", ["row"], "length", "score", "task"]
    assert more == {"log": "x"}
    assert list(TASKS) == [
        *("key_value", "niah_single_1", "niah_multikey_2", "niah_multikey_3", "vt", "cwe", "fwe")
    ]


def test_the_command_line_s_options(called, capsys):
    given = ["--model", "f", "--tasks", "vt", "cwe", "--lengths", "9", "7", "--examples", "3"]
    seen = called(*given, "--dtype", "bfloat16")
    assert seen.asked == (["vt", "cwe"], [9, 7], 3)
    assert seen.options["dtype"] == torch.bfloat16
    for wrong in (["--tasks", "vt"], ["--model", "f", "--tasks", "vtt"], ["--model", "f", "--dtype", "half"]):
        with pytest.raises(SystemExit):
            called(*wrong)
    with pytest.raises(SystemExit, match="no task fits these lengths"):
        called("--model", "f", rows=())
