"""The recipes of the rows: which may be compared, and what is wrong with the others, before any training."""

import pytest
from paths import ROOT

from cadenza.recipe import load_settings
from cadenza.studies.ablation import __main__, plan, recipes, speed
from cadenza.studies.ablation.results import comparisons
from cadenza.studies.ablation.settings import Ablation
from cadenza.studies.running.source import Source

YAML = str(ROOT / "yamls/ablation.yaml")


@pytest.fixture(autouse=True)
def _in_the_checkout(monkeypatch):
    monkeypatch.chdir(ROOT)


def settings(*pairs):
    return load_settings(Ablation, [YAML], list(pairs))


def test_the_rows_of_the_packaged_settings():
    cfg = settings()
    rows = recipes.of_rows(cfg)
    assert len(rows) == 11
    loaded = {name: source.load() for name, source in rows.items()}
    assert loaded["bert"].algorithms == {}
    assert (loaded["bert"].data.mlm_probability, loaded["bert_30"].data.mlm_probability) == (0.15, 0.3)
    whole = set(loaded["mosaicbert"].algorithms)
    assert len(whole) == 7
    for name in whole:
        assert set(loaded[f"without_{name}"].algorithms) == whole - {name}
    assert set(loaded["mosaicbert_schedule"].algorithms) == whole | {"masking_schedule"}


def test_the_rows_of_the_modern_encoder():
    cfg = load_settings(Ablation, [str(ROOT / "yamls/ablation_modern.yaml")], [])
    loaded = {name: source.load() for name, source in recipes.of_rows(cfg).items()}
    positions = {name: {"alibi", "rotary"} & set(row.algorithms) for name, row in loaded.items()}
    assert positions.pop("alibi") == {"alibi"}
    assert positions.pop("learned_positions") == set()
    assert all(found == {"rotary"} for found in positions.values())
    assert {name for name, row in loaded.items() if "pre_norm" not in row.algorithms} == {"post_norm"}
    muon = {name for name, row in loaded.items() if row.optimizer.name == "muon"}
    assert muon == {"muon", "muon_slower"}


def test_a_row_that_is_false_is_left_out():
    rows = recipes.of_rows(settings("rows.without_glu=false"))
    assert len(rows) == 10
    assert "without_glu" not in rows


def test_what_is_compared_with_what():
    """A row without a technique tells what the technique gives: the full row is the first of the two."""
    cfg = settings()
    found = {tuple(pair) for pair in comparisons(cfg, recipes.of_rows(cfg))}
    assert len(found) == 11
    assert ("alibi", "mosaicbert", "without_alibi") in found
    assert ("bert_30", "bert_30", "bert") in found
    assert ("mosaicbert", "mosaicbert", "bert_30") in found
    assert ("mosaicbert_schedule", "mosaicbert_schedule", "mosaicbert") in found


def test_a_row_that_differs_in_more_is_not_taken_for_a_technique_left_out():
    cfg = settings("rows.without_glu.overrides=[algorithms.glu=false,optimizer.lr=0.1]")
    assert ("without_glu", "without_glu", "mosaicbert") in map(tuple, comparisons(cfg, recipes.of_rows(cfg)))


def test_minutes_become_steps_and_equal_ones_a_single_run():
    rows = {name: Source(name, (), ()) for name in ("bert", "fast")}
    steps = plan.steps_of(0.5, {"bert": 0.3, "fast": 0.15}, "bert")
    assert steps == {"bert": {"steps": 100, "time": 100}, "fast": {"steps": 100, "time": 200}}
    every = plan.cells(rows, None, steps, [1, 2], "runs")
    found = [(cell.seed, cell.row, cell.steps) for cell in every]
    assert found == [(s, *rest) for s in (1, 2) for rest in (("bert", 100), ("fast", 100), ("fast", 200))]


@pytest.mark.parametrize(("steps", "interval"), [(420, 35), (410, 35), (11, 1), (421, 36)])
def test_twelve_evaluations_at_most(steps, interval):
    cell = plan.Cell("bert", 17, steps, Source("bert", (), ()), None, "runs")
    assert f"train.eval_interval={interval}ba" in cell.lasting


def test_a_cells_settings_are_what_its_results_depend_on():
    source = recipes.of_rows(settings())["bert"]
    cell = plan.Cell("bert", 17, 100, source, None, "runs")
    assert cell.settings == plan.Cell("bert", 17, 100, source, None, "elsewhere").settings
    more = Source("bert", source.files, (*source.pairs, "optimizer.lr=0.1"))
    for other in (
        plan.Cell("bert", 18, 100, source, None, "runs"),
        plan.Cell("bert", 17, 101, source, None, "runs"),
        plan.Cell("bert", 17, 100, more, None, "runs"),
    ):
        assert other.settings != cell.settings


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("recipe=[]", "recipe is empty"),
        ("minutes=0", "minutes is 0; it must lie in (0, 1e6]"),
        ("minutes=ten", "minutes is 'ten' (str); it must be a number"),
        ("seeds=[17,17]", "seeds is [17, 17]; each must be there once"),
        ("seeds=[]", "seeds is empty"),
        ("processes=0", "processes is 0; it must be at least 1"),
        ("rounds=1", "rounds is 1; it must be at least 2"),
        ("baseline=brt", "baseline names 'brt', which is no other row; did you mean 'bert'?"),
        ("reach=[bert_3]", "reach names 'bert_3', which is no other row; did you mean 'bert_30'?"),
        ("rows.mosaicbert.against=[mosaicbert]", "rows.mosaicbert.against names 'mosaicbert'"),
        ("rows.bert.overides=[]", "rows.bert.overides is no key of it; did you mean 'overrides'?"),
        ("rows.bert.overrides=name", "rows.bert.overrides is 'name'; it must be a list of text"),
        ("rows.bert=1", "rows.bert is 1; it must be a mapping"),
        ("rows.bert.overrides=[data.sorce=c4]", "rows.bert: overrides: unknown key data.sorce"),
        ("rows.bert.recipe=[nowhere.yaml]", "rows.bert: nowhere.yaml: there is no such file"),
        ("rows.bert_30.overrides=[data.eval_mlm_probability=0.3]", "data.eval_mlm_probability is 0.3, in"),
        (
            "rows.bert_30.overrides=[tokenizer.vocab_size=900]",
            "tokenizer.vocab_size is 900, in rows.bert 1000",
        ),
        ("rows.bert_30.overrides=[data.max_seq_len=64]", "data.max_seq_len is 64, in rows.bert 128"),
        ("rows.bert_30.overrides=[model.objective=causal_lm]", "model.objective is causal_lm, in rows.bert"),
        ("rows.more={recipe: [yamls/resnet50_bf16.yaml]}", "rows.more: model.objective is image_class"),
        ("rows.bert.overrides=[scheduler.t_warmup=5ba]", "scheduler.t_warmup is 5ba; runs have different"),
        ("finetune={}", "finetune.recipe must name the recipe's files"),
        ("finetune={recipes: []}", "finetune.recipes is no key of it; did you mean 'recipe'?"),
        ("finetune={recipe: [yamls/bert.yaml]}", "finetune: model.objective must be text_classification"),
        (
            "finetune={recipe: [yamls/finetune.yaml], overrides: [data.target=number]}",
            "finetune: data.target",
        ),
        ("finetune={recipe: [yamls/finetune.yaml], overrides: [data.source=no.csv]}", "no.csv"),
        ("minuts=1", "unknown key minuts; did you mean 'minutes'?"),
    ],
)
def test_what_cant_be_compared_is_refused_before_anything_is_measured(
    pair, message, monkeypatch, capsys, tmp_path
):
    monkeypatch.setattr(speed, "measure", None)
    assert __main__.main([YAML, "overrides=[]", pair, f"out={tmp_path / 'out'}"]) == 2
    lines = capsys.readouterr().err.splitlines()
    (said,) = (line for line in lines if line.startswith("error: "))
    assert message in said
    assert not (tmp_path / "out").exists()


def test_help(capsys):
    assert __main__.main(["--help"]) == 0
    said = capsys.readouterr().out
    assert "python -m cadenza.studies.ablation yamls/ablation.yaml" in said
    assert "minutes: " in said
