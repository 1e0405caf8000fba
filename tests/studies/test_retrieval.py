"""The study of retrieval: how answers are produced and scored, and its command line."""

import sys
from types import SimpleNamespace

import pytest
import torch
from families import build
from words import Characters

from cadenza.studies import report, retrieval
from cadenza.studies.retrieval import score
from cadenza.studies.retrieval_tasks import TASKS, Example, fitted


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
        monkeypatch.setattr(retrieval, "causal", lambda *given: f"words of {given}")
        monkeypatch.setattr("torch.cuda.is_available", lambda: False)
        monkeypatch.setattr(retrieval, "safe_weights", lambda: {"use_safetensors": True})
        monkeypatch.setattr(retrieval, "evaluate", evaluate)
        monkeypatch.setattr(report, "write", lambda *given, **more: seen.written.append((given, more)))
        monkeypatch.setattr(sys, "argv", ["retrieval", *options])
        seen.code = retrieval.main()
        return seen

    return called


def test_the_command_line_and_its_defaults(called):
    seen = called("--model", "folder", "--out", "there")
    assert seen.asked == (list(TASKS), [512, 1024, 2048], 20)
    assert (seen.folder, seen.device, seen.eval) == ("folder", "cpu", True)
    assert seen.options == {"dtype": torch.float32, "use_safetensors": True}
    assert seen.models == ("Model", "words of ('folder', 2048)"), "it must have so many positions"
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
    assert called("--model", "f", rows=()).code == 2
    assert capsys.readouterr().err.endswith("error: --lengths: no task fits them\n")
