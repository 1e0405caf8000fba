"""The study of long context from its settings to its files."""

import csv
import json
from pathlib import Path

import pytest

from cadenza.studies.checks import StudyError
from cadenza.studies.long_context import __main__, cell, plan, text
from cadenza.studies.long_context.settings import LongContext
from cadenza.studies.running import missing

OUT = Path("runs/studies/long_context")
SHORT = """
name: short
model:
  objective: causal_lm
  model_type: llama
  config: {hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 16}
tokenizer: {name: wordpiece, vocab_size: 300}
data: {source: text.jsonl, max_seq_len: 64, eval_fraction: 0.3}
optimizer: {name: adamw, lr: 0.01}
train: {global_batch_size: 4, max_duration: 3ba, save_interval: 3ba, precision: fp32}
"""
LONG = """
name: long
model: {objective: causal_lm, config: {max_position_embeddings: 128}}
data: {source: text.jsonl, max_seq_len: 128, eval_fraction: 0.3}
algorithms: {anchor_attention: {}}
optimizer: {name: adamw, lr: 0.01}
train: {global_batch_size: 2, max_duration: 2ba, save_interval: 2ba, precision: fp32}
"""
SETTINGS = """
short: {recipe: [short.yaml]}
long: {recipe: [long.yaml]}
rows:
  full: {overrides: ["algorithms.anchor_attention={mode: full}"], against: [anchor]}
  anchor: {}
seeds: [17, 18]
lengths: [128]
documents: 3
examples: 2
"""


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CADENZA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(plan, "DOCUMENTS", 200)
    rows = [json.dumps({"text": f"{a} sees {b} run. " * 40}) for a in "abcdefgh" for b in "ijkl"]
    (tmp_path / "text.jsonl").write_text("\n".join(rows) + "\n")
    for name, content in (("short", SHORT), ("long", LONG), ("study", SETTINGS)):
        (tmp_path / f"{name}.yaml").write_text(content)
    monkeypatch.setattr(text, "prose", lambda: [f"word{number % 50}" for number in range(5000)])


def settings(**changes):
    part = {"short": {"recipe": ["short.yaml"]}, "long": {"recipe": ["long.yaml"]}}
    return LongContext(**{**part, "rows": {"full": {}, "anchor": {}}, "seeds": [17], **changes})


@pytest.fixture
def stand_ins(monkeypatch):
    """In place of training: the cells that were asked for, and an error at number `stop_at`."""
    trained = []

    def measured(cfg, each):
        if len(trained) == stand_in.stop_at:
            raise StudyError("stopped")
        trained.append((each.row, each.seed))
        value = each.seed + len(each.row)
        scores = {"losses": json.dumps([value] * 16), "recall": json.dumps(dict.fromkeys(cfg.lengths, 0.5))}
        return {"row": each.row, "seed": each.seed, **scores, "settings": each.settings}

    class stand_in:
        stop_at, cells = None, trained

    monkeypatch.setattr(cell, "measured", measured)
    monkeypatch.setattr(missing, "run_jobs", lambda jobs, _: ((j, j.call(*j.arguments)) for j in jobs))
    return stand_in


def test_a_stopped_study_goes_on_with_what_is_missing(stand_ins, capsys):
    stand_ins.stop_at = 4
    assert __main__.main(["study.yaml"]) == 2
    assert "stopped" in capsys.readouterr().err
    stand_ins.stop_at = None
    assert __main__.main(["study.yaml"]) == 0
    rows = [(name, seed) for seed in (17, 18) for name in ("short", "full", "anchor")]
    assert stand_ins.cells == rows
    assert "4 of 6 cells are done" in capsys.readouterr().out
    page = (OUT / "long_context.md").read_text()
    assert "| full - anchor | -2.000 (-2.000 to -2.000)" in page  # the names differ by two letters
    assert json.loads((OUT / "long_context.json").read_text())["cells"][0]["row"] == "short"


def test_another_row_leaves_the_others_as_they_are(stand_ins):
    __main__.main(["study.yaml"])
    __main__.main(["study.yaml", 'rows.more={overrides: ["optimizer.lr=0.1"]}'])
    assert stand_ins.cells[6:] == [("more", 17), ("more", 18)]


def test_another_short_run_means_other_long_ones(stand_ins):
    __main__.main(["study.yaml"])
    __main__.main(["study.yaml", 'short.overrides=["optimizer.lr=0.1"]'])
    assert len(stand_ins.cells) == 12


def test_a_long_run_begins_with_the_weights_of_its_own_seed():
    found = {(each.row, each.seed): each for each in plan.cells(settings(seeds=[17, 18]))}
    short = found["short", 18]
    assert found["full", 18].pairs == (
        "seed=18",
        f"model.pretrained={short.folder}",
        f"tokenizer.name={short.folder}",
    )
    assert len({each.folder for each in found.values()}) == 6


def test_the_text_with_keys_is_as_long_as_the_windows_and_has_its_share():
    recipes = {name: source.load() for name, source in plan.sources(settings(key_values=0.25)).items()}
    for name, window in (("short", 64), ("full", 128)):
        (text_part, share), (keys, other) = recipes[name].data.parts()
        assert (text_part.source, share, other) == ("text.jsonl", 0.75, 0.25)
        assert f"key_values_{window}_" in keys.source
    plain = plan.sources(settings(key_values=0))["short"].load()
    assert plain.data.mixture is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": {"short": {}}}, "rows.short: the run on short windows has this name"),
        ({"rows": {"full": {"against": ["anker"]}}}, "rows.full.against names 'anker', no other row"),
        (
            {"rows": {"full": {"overides": []}}},
            "rows.full.overides is no key of it; did you mean 'overrides'",
        ),
        ({"rows": {}}, "rows is empty"),
        ({"long": {}}, "long.recipe must name the recipe's files"),
        ({"lengths": [128, 128]}, "each must be there once"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        settings(**changes)


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        (
            'long.overrides=["data.source=python_docs", "data.mixture=[{source: a.jsonl, weight: 1}]"]',
            "data.mixture is set by key_values",
        ),
        ("long.overrides=[optimizer.lr=-1]", "rows.full: "),
        ("ruler.models=[a]", "ruler.models is set by this study"),
        ("ruler.tasks=[vtt]", "ruler: tasks"),
    ],
)
def test_what_can_not_run_is_refused_before_anything_is_trained(stand_ins, capsys, pair, message):
    assert __main__.main(["study.yaml", pair]) == 2
    assert message in capsys.readouterr().err
    assert not stand_ins.cells


@pytest.mark.slow
def test_the_study_for_real(monkeypatch, capsys):
    monkeypatch.setattr(missing, "run_jobs", lambda jobs, _: ((j, j.call(*j.arguments)) for j in jobs))
    pairs = ["seeds=[17]", "ruler={tasks: [key_value], lengths: [256], examples: 1}"]
    assert __main__.main(["study.yaml", *pairs]) == 0, capsys.readouterr()
    rows = list(csv.DictReader((OUT / "long_context.csv").read_text().splitlines()))
    assert [row["row"] for row in rows] == ["short", "full", "anchor"]
    assert len({row["losses"] for row in rows}) == 3
    assert all(len(json.loads(row["losses"])) == 16 for row in rows)
    assert all(0 <= json.loads(row["recall"])["128"] <= 1 for row in rows)
    assert "key_value" in (OUT / "ruler/ruler.md").read_text()
    first = capsys.readouterr().out
    assert __main__.main(["study.yaml", *pairs]) == 0
    assert "3 of 3 cells are done" in capsys.readouterr().out
    assert "| full - anchor |" in first
