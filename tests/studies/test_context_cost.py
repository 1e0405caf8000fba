"""The study of what a window costs: pairs and operations against plain counts, what is measured, and how."""

import csv
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaModel

from cadenza.studies import context_cost, report
from cadenza.studies.context_cost import MODES, operations, pairs


@pytest.mark.parametrize(
    ("window", "document", "expected"),
    [(2, 1, [1, 1]), (9, 4, [1, 4, 4]), (10, 4, [1, 4, 4, 1]), (16, 100, [1, 15])],
)
def test_pairs_are_those_of_the_mask(window, document, expected):
    lengths = context_cost.lengths_of(window, document)
    assert lengths == expected
    ids = torch.cat([torch.full((n,), i) for i, n in enumerate(lengths)])
    causal = torch.ones(window, window, dtype=torch.bool).tril()
    own = ids[:, None] == ids
    for mode, mask in {
        "full": causal,
        "intra_document": causal & own,
        "anchor": causal & (own | (ids == 0)),
    }.items():
        assert pairs(mode, window, document) == mask.sum()


def test_operations_are_six_for_each_weight_and_twice_for_each_pair():
    """Of width 6 a layer has 4 * 36 weights in attention and 3 * 6 * 16 in the feed-forward."""
    weights = 2 * (4 * 36 + 3 * 6 * 16)
    for mode, pairs_ in (("full", 45), ("intra_document", 21), ("anchor", 29)):
        scores_and_values = 2 * 2 * 6 * pairs_  # multiplications and additions of a layer
        assert operations(mode, 9, 4, 6, 2) == 6 * weights * 9 + 3 * 2 * scores_and_values


def test_operations_are_those_of_the_paper_s_sizes():
    """At 131,072 tokens of documents of 1,024 a 7B model's step is about 3.6 times cheaper."""
    full, anchor = (operations(m, 131_072, 1024, 4096, 32) for m in ("full", "anchor"))
    assert full / anchor == pytest.approx(3.58, rel=0.03)


SIZES = {
    "hidden_size": 24,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 3,
    "vocab_size": 32,
    "max_position_embeddings": 2**20,
}


def test_layers_differ_in_their_mode_alone():
    assert MODES == ("full", "intra_document", "anchor")
    models = {mode: context_cost.layer(mode, 24, 3) for mode in MODES}
    ids = torch.tensor([[0, 1, 1, 1, 2, 2, 2]])
    tokens = torch.tensor([[5, 6, 7, 31, 0, 1, 2]])
    with torch.no_grad():
        found = {
            m: model(input_ids=tokens, document_ids=ids).last_hidden_state for m, model in models.items()
        }
        torch.manual_seed(0)
        stock = LlamaModel(LlamaConfig(**SIZES))(input_ids=tokens).last_hidden_state
    assert (found["full"] - stock).abs().max() < 1e-5
    assert (found["full"] - found["anchor"]).abs().max() > 1e-3
    assert (found["anchor"] - found["intra_document"]).abs().max() > 1e-3
    first = models["full"].state_dict()
    for model in models.values():
        assert all(torch.equal(first[name], tensor) for name, tensor in model.state_dict().items())
        assert model.training
        assert {name: getattr(model.config, name) for name in SIZES} == SIZES


def test_kept_is_each_storage_once():
    a, b = (torch.ones(2**18, requires_grad=True) for _ in range(2))  # of a mebibyte each
    assert context_cost.kept_mib(lambda: (a * a).sum()) == 1
    assert context_cost.kept_mib(lambda: (a * b).sum()) == 2
    assert context_cost.kept_mib(lambda: (a[:9] * b[:9]).sum()) == 2, "a part keeps the whole"
    assert context_cost.kept_mib(lambda: (a + b).sum()) == 0


class Model(nn.Module):
    """Notes what it is called with, and which model is called when."""

    def __init__(self, mode, seen):
        super().__init__()
        self.mode, self.seen, self.weight = mode, seen, nn.Parameter(torch.tensor([1.0, 3.0]))

    def forward(self, input_ids, document_ids):
        self.seen.append((self.mode, input_ids, document_ids))
        return SimpleNamespace(last_hidden_state=2 * self.weight)


@pytest.fixture
def chosen():
    return SimpleNamespace(hidden=6, heads=2, layers=2, rounds=3)


def test_models_take_turns(chosen, monkeypatch):
    seen, asked, trained = [], [], []

    def layer(mode, hidden, heads):
        asked.append((mode, hidden, heads))
        return Model(mode, seen)

    def seconds(step):
        before = len(seen)
        step()
        trained.append(seen[before][0])
        return float(len(trained))

    monkeypatch.setattr(context_cost, "layer", layer)
    monkeypatch.setattr(context_cost, "_seconds", seconds)
    monkeypatch.setattr(context_cost.torch.cuda, "is_available", lambda: False)
    rows = context_cost.measure(9, 4, chosen)
    assert asked == [(mode, 6, 2) for mode in MODES]
    assert trained == [*MODES] * 3
    for _, tokens, ids in seen:
        assert ids.tolist() == [[0, 1, 1, 1, 1, 2, 2, 2, 2]]
        assert tokens.shape == (1, 9)
        assert tokens.dtype == torch.int64
        assert torch.equal(tokens, seen[0][1])
    assert [row["mode"] for row in rows] == [*MODES]
    assert [row["seconds"] for row in rows] == [4, 5, 6]
    assert [row["speed-up"] for row in rows] == [1, 4 / 5, 4 / 6]
    assert all(row["kept MiB"] > 0 for row in rows)


def test_tokens_are_words_of_the_model(chosen, monkeypatch):
    seen = []
    monkeypatch.setattr(context_cost, "layer", lambda mode, *_: Model(mode, seen))
    chosen.rounds = 1
    context_cost.measure(2000, 100, chosen)
    assert set(seen[0][1].flatten().tolist()) == set(range(32))


def test_a_step_is_forward_and_backward_from_no_gradient():
    seen = []
    model = Model("full", seen)
    tokens, ids = torch.zeros(1, 2), torch.ones(1, 2)
    step = context_cost._step(model, tokens, ids)
    for _ in range(2):
        loss = step()
        loss.backward()
    assert loss.item() == (4 + 36) / 2
    assert model.weight.grad.tolist() == [4, 12]
    assert seen[1] == ("full", tokens, ids)


def test_what_is_timed_is_the_step_with_its_backward(chosen, monkeypatch):
    models = []

    def layer(mode, *_):
        models.append(Model(mode, []))
        return models[-1]

    monkeypatch.setattr(context_cost, "layer", layer)
    context_cost.measure(9, 4, chosen)
    assert [model.weight.grad.tolist() for model in models] == [[4, 12]] * 3


@pytest.mark.parametrize("cuda", [False, True])
def test_seconds_are_of_a_clock_that_waits_for_the_device(cuda, monkeypatch):
    now, order = iter([10.0, 12.5]), []
    monkeypatch.setattr(context_cost.torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(context_cost.torch.cuda, "synchronize", lambda: order.append("wait"))
    monkeypatch.setattr(context_cost.time, "perf_counter", lambda: order.append("look") or next(now))
    assert context_cost._seconds(lambda: order.append("step")) == 2.5
    waiting = ["wait", "look", "step", "wait", "look"]
    assert order == (waiting if cuda else ["look", "step", "look"])


def test_a_row(chosen):
    """The speed-up is the median of ratios, not the ratio of medians (6 / 2)."""
    times = {"full": [4.0, 6.0, 20.0], "anchor": [1.0, 3.0, 2.0]}
    row = context_cost._row("anchor", 9, 4, chosen, times, {"full": 7.0, "anchor": 5.0})
    work = {mode: operations(mode, 9, 4, 6, 2) for mode in MODES}
    assert row == {
        "window": 9,
        "document": 4,
        "mode": "anchor",
        "mode and document": "anchor, 4",
        "TFLOP": pytest.approx(work["anchor"] * 1e-12),
        "operations saved": work["full"] / work["anchor"],
        "seconds": 2.0,
        "speed-up": 4.0,
        "kept MiB": 5.0,
    }
    full = context_cost._row("full", 9, 4, chosen, times, {"full": 7.0})
    assert (full["mode and document"], full["speed-up"], full["kept MiB"]) == ("full", 1, 7)


def test_the_command_line_and_its_defaults(monkeypatch):
    asked, written = [], []

    def measure(window, document, chosen):
        asked.append((window, document, chosen.hidden, chosen.heads, chosen.layers, chosen.rounds))
        return [(window, document)]

    monkeypatch.setattr(context_cost, "measure", measure)
    monkeypatch.setattr(report, "write", lambda *given: written.append(given))
    monkeypatch.setattr(sys, "argv", ["context_cost"])
    context_cost.main()
    cases = [(w, d) for w in (2048, 4096, 8192, 16_384) for d in (512, 1024)]
    assert asked == [(*case, 512, 8, 30, 3) for case in cases]
    assert [(str(folder), *rest) for folder, *rest in written] == [
        ("runs/studies", name, cases, "window", y, "mode and document")
        for name, y in (("context_cost", "seconds"), ("context_memory", "kept MiB"))
    ]


@pytest.mark.slow
def test_context_cost_from_the_command_line(tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    sizes = {
        "windows": "32 64",
        "documents": "16",
        "hidden": "16",
        "heads": "2",
        "layers": "3",
        "rounds": "1",
    }
    options = [part for name, values in sizes.items() for part in (f"--{name}", *values.split())]
    monkeypatch.setattr(sys, "argv", ["context_cost", *options, "--out", str(tmp_path)])
    context_cost.main()
    with (tmp_path / "context_cost.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    assert all(float(row["seconds"]) > 0 and float(row["kept MiB"]) > 0 for row in rows)
    assert float(rows[0]["TFLOP"]) == pytest.approx(operations("full", 32, 16, 16, 3) / 1e12)
    for end in ("md", "png"):
        assert (tmp_path / f"context_memory.{end}").stat().st_size > 0
    assert "anchor, 16" in capsys.readouterr().out
