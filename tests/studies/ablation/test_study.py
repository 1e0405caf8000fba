"""The ablation from its settings to its files: stopped, resumed, extended, and once for real."""

import csv
import json
import pickle

import pytest

from cadenza.studies.ablation import __main__, cell, speed, study
from cadenza.studies.checks import StudyError
from cadenza.studies.running import missing

RECIPE = """
name: tiny
model:
  config: {hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 16}
tokenizer: {vocab_size: 300}
data: {source: text.jsonl, max_seq_len: 16, eval_fraction: 0.2, mlm_probability: 0.15}
optimizer: {lr: 0.01}
scheduler: {t_warmup: 0.1dur}
train: {global_batch_size: 8, precision: fp32}
"""
SETTINGS = """
recipe: [tiny.yaml]
minutes: 0.01
seeds: [17, 18]
rounds: 2
reach: [bert]
rows:
  bert: {}
  fast: {overrides: ["algorithms.unpadding={}", "algorithms.glu={}"], against: [bert]}
  without_glu: {overrides: ["algorithms.unpadding={}"], against: [fast]}
"""
SECONDS = {"bert": 0.3, "fast": 0.1, "without_glu": 0.2, "slow": 0.6, "again": 0.3}
FINETUNE = """
name: tuned
model: {objective: text_classification}
tokenizer: {name: "${model.pretrained}"}
data: {source: labelled.csv, max_seq_len: 16, eval_fraction: 0.25}
train: {global_batch_size: 8, max_duration: 2ep, precision: fp32}
"""


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CADENZA_CACHE", str(tmp_path / "cache"))
    texts = [json.dumps({"text": f"the {a} sees the {b} run"}) for a in "abcdefgh" for b in "ijklmnop"]
    (tmp_path / "text.jsonl").write_text("\n".join(texts) + "\n")
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    (tmp_path / "ablation.yaml").write_text(SETTINGS)


class StandIns:
    """In place of measuring and training: what was asked for, and an error at the cell number `stop_at`."""

    def __init__(self):
        self.measured, self.trained, self.stop_at = [], [], None

    def measure(self, rows, rounds):
        self.measured.append(list(rows))
        return {name: [SECONDS[name]] * rounds for name in rows}

    def train(self, asked):
        if len(self.trained) == self.stop_at:
            raise StudyError("stopped")
        self.trained.append((asked.row, asked.seed, asked.steps))
        loss = 3.0 - asked.steps / 10 + asked.seed
        curve = json.dumps([[asked.steps // 2, loss + 1], [asked.steps, loss]])
        named = {"row": asked.row, "seed": asked.seed, "steps": asked.steps, "loss": loss}
        return {**named, "accuracy": None, "seconds": 1.0, "curve": curve, "settings": asked.settings}


@pytest.fixture
def stand_ins(monkeypatch):
    made = StandIns()
    monkeypatch.setattr(speed, "measure", made.measure)
    monkeypatch.setattr(cell, "measured", made.train)
    for module in (study, missing):
        monkeypatch.setattr(module, "run_jobs", lambda jobs, _: ((j, j.call(*j.arguments)) for j in jobs))
    return made


def run(*pairs):
    return __main__.main(["ablation.yaml", *pairs])


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_equal_steps_and_equal_time(stand_ins):
    """0.6 s are 2 steps of the baseline, 6 and 3 of the others."""
    assert run("out=out") == 0
    once = [("bert", 2), ("fast", 2), ("fast", 6), ("without_glu", 2), ("without_glu", 3)]
    assert stand_ins.trained == [(row, seed, steps) for seed in (17, 18) for row, steps in once]


def test_a_stopped_study_keeps_what_is_done(stand_ins, tmp_path, capsys):
    assert run("out=whole") == 0
    whole = (tmp_path / "whole/ablation.md").read_text()
    stand_ins.trained, stand_ins.stop_at = [], 3
    assert run("out=out") == 2
    assert len(rows_of(tmp_path / "out/ablation.csv")) == 3
    first, stand_ins.trained, stand_ins.stop_at = stand_ins.trained, [], None
    capsys.readouterr()
    assert run("out=out") == 0
    assert len(stand_ins.trained) == 7
    assert not set(first) & set(stand_ins.trained)
    assert len(stand_ins.measured) == 2, "the speed was measured once for each folder"
    said = capsys.readouterr().out
    assert "speed of 3 of 3 rows: as measured before, out/speed.csv" in said
    assert "3 of 10 cells are done" in said
    assert (tmp_path / "out/ablation.md").read_text() == whole


def test_a_new_row_leaves_the_others_alone(stand_ins, tmp_path):
    assert run("out=out") == 0
    stand_ins.trained.clear()
    more = "rows.slow={overrides: [optimizer.lr=0.02], against: [bert]}"
    assert run("out=out", more) == 0
    assert stand_ins.measured[1:] == [["bert", "slow"]]
    assert stand_ins.trained == [("slow", s, n) for s in (17, 18) for n in (2, 1)]
    assert run("out=out") == 0
    assert "slow" not in (tmp_path / "out/ablation.md").read_text()


def test_two_rows_of_one_recipe_are_two_rows(stand_ins, tmp_path):
    assert run("out=out", "rows.again={against: [bert]}") == 0
    assert len([each for each in stand_ins.trained if each[0] == "again"]) == 2
    assert "again against bert" in (tmp_path / "out/ablation.md").read_text()


def test_a_change_of_a_recipe_is_measured_and_trained_anew(stand_ins):
    assert run("out=out", "seeds=[17]") == 0
    stand_ins.trained.clear()
    overlay = "rows.without_glu.overrides=['algorithms.unpadding={}',train.global_batch_size=4]"
    assert run("out=out", "seeds=[17]", overlay) == 0
    assert stand_ins.measured[1:] == [["bert", "without_glu"]]
    assert stand_ins.trained == [("without_glu", 17, 2), ("without_glu", 17, 3)]


def test_a_speed_that_lacks_rounds_is_measured_again(stand_ins, tmp_path):
    """The study was killed while it wrote them."""
    assert run("out=out") == 0
    path = tmp_path / "out/speed.csv"
    path.write_text("\n".join(path.read_text().splitlines()[:-1]) + "\n")
    assert run("out=out") == 0
    assert stand_ins.measured[1:] == [["bert", "without_glu"]]


def test_the_reports(stand_ins, tmp_path, capsys):
    assert run("out=out") == 0
    page = (tmp_path / "out/ablation.md").read_text()
    assert page in capsys.readouterr().out
    assert "Equal steps are 2; equal time is 0.01 min" in page
    assert "| fast | 100.0 | 0.33 (0.33 to 0.33) | 20.300 |  | 6 | 19.900 |  | " in page
    assert (
        "| glu | fast against without_glu | 0.50 (0.50 to 0.50) | +0.000 (+0.000 to +0.000): can't tell |"
        in page
    )
    facts = json.loads((tmp_path / "out/ablation.json").read_text())
    assert facts["rows"]["fast"]["by_seed"]["time"]["loss"] == {"17": 19.4, "18": 20.4}
    glu = next(each for each in facts["comparisons"] if each["label"] == "glu")
    assert glu["time"]["loss"][0] == pytest.approx(-0.3)
    assert glu["time"]["accuracy"] is None
    assert (tmp_path / "out/ablation.png").read_bytes().startswith(b"\x89PNG")


def unpickled(jobs, slots):
    for job in jobs:
        yield job, pickle.loads(pickle.dumps(job.call))(*pickle.loads(pickle.dumps(job.arguments)))


@pytest.mark.slow
def test_played_for_real(tmp_path, monkeypatch):
    """Two rows and two seeds, pretrained and fine-tuned; in this process, by what another one would get."""
    for module in (study, missing):
        monkeypatch.setattr(module, "run_jobs", unpickled)
    (tmp_path / "tuned.yaml").write_text(FINETUNE)
    labelled = [f"the {a} sees the {b},{'early' if a < 'e' else 'late'}" for a in "abcdefgh" for b in "ijkl"]
    (tmp_path / "labelled.csv").write_text("text,label\n" + "\n".join(labelled) + "\n")
    rows = "rows={bert: {}, fast: {overrides: ['algorithms.unpadding={}'], against: [bert]}}"
    settings = SETTINGS.partition("rows:")[0]
    (tmp_path / "ablation.yaml").write_text(settings)
    assert run(rows, "minutes=0.002", "finetune={recipe: [tuned.yaml]}", "out=out") == 0
    speeds = rows_of(tmp_path / "out/speed.csv")
    assert [(each["row"], each["round"]) for each in speeds] == [
        (r, n) for r in ("bert", "fast") for n in "01"
    ]
    assert all(float(each["seconds"]) > 0 for each in speeds)
    found = rows_of(tmp_path / "out/ablation.csv")
    assert {(each["row"], each["seed"]) for each in found} == {
        (r, s) for r in ("bert", "fast") for s in ("17", "18")
    }
    for each in found:
        (folder,) = tmp_path.glob(f"out/runs/{each['row']}-{each['steps']}-{each['seed']}-{each['settings']}")
        record = json.loads((folder / "run.json").read_text())
        assert record["train"]["batches"] == int(each["steps"])
        assert (record["eval"]["loss"], record["recipe"]["seed"]) == (float(each["loss"]), int(each["seed"]))
        curve = json.loads(each["curve"])
        assert 1 < len(curve) <= 21
        assert curve[-1] == [int(each["steps"]), float(each["loss"])]
        tuned = json.loads((folder.with_name(folder.name + "-finetune") / "run.json").read_text())
        assert tuned["eval"]["accuracy"] == float(each["accuracy"])
        assert f"/{folder.name}-" in tuned["recipe"]["model"]["pretrained"], "an export of its checkpoint"
        assert len(list((folder / "checkpoints").glob("ep*.pt"))) == 1
    assert "fast against bert" in (tmp_path / "out/ablation.md").read_text()
