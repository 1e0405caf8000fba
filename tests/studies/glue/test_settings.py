"""Settings of the study: what is refused, with task and key, and which cells and recipes they give."""

import pytest
from paths import ROOT

from cadenza.recipe import RecipeError, load_settings
from cadenza.studies.checks import StudyError
from cadenza.studies.glue.plan import Plan
from cadenza.studies.glue.settings import Glue

FINETUNE = str(ROOT / "yamls/finetune.yaml")
SETTINGS = """
models: [some/bert]
recipe: [{recipe}]
data: {{source: shared.csv, max_seq_len: 24}}
tasks:
  films: {{seeds: [1, 2], optimizer: {{lr: 0.01}}}}
  pairs: {{seeds: [3], after: films, data: {{source: own.csv, pair_field: other}}, metrics: [f1, far.mcc]}}
"""


@pytest.fixture
def plan(tmp_path):
    file = tmp_path / "study.yaml"
    file.write_text(SETTINGS.format(recipe=FINETUNE))

    def plan(*pairs):
        far = "tasks.pairs.data.other_eval.far=far.csv"
        return Plan(load_settings(Glue, [str(file)], [f"out={tmp_path}/out", far, *pairs]))

    return plan


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("models=[]", "models is empty"),
        ("tasks=null", "tasks is empty"),
        ("models=[a,a]", r"models is \['a', 'a'\]; each must be there once"),
        ("tasks.films.sedes=[1]", "unknown key tasks.films.sedes; did you mean 'seeds'?"),
        ("tasks.films.optimiser.lr=1", "unknown key tasks.films.optimiser; did you mean 'optimizer'?"),
        ("tasks.films.seed=1", "unknown key tasks.films.seed; did you mean 'seeds'?"),
        ("tasks.films=[1]", "tasks.films must be a mapping"),
        ("tasks.new={data: {}}", "tasks.new.seeds is missing; it must be a list of an integer"),
        ("tasks.films.seeds=1", r"tasks.films.seeds is 1 \(int\); it must be a list of an integer"),
        ("tasks.films.seeds=[]", "tasks.films.seeds is empty"),
        ("tasks.films.seeds=[1,1]", r"tasks.films.seeds is \[1, 1\]; each must be there once"),
        ("tasks.films.seeds=[-1]", r"tasks.films.seeds\[0\] is -1; it must be at least 0"),
        ("tasks.films.metrics=[]", "tasks.films.metrics is empty"),
        ("tasks.pairs.after=film", "tasks.pairs.after: there is no other task 'film'; did you mean 'films'"),
        ("tasks.pairs.after=pairs", "tasks.pairs.after: there is no other task 'pairs'"),
        ("tasks.films=null", "tasks.pairs.after: there is no other task 'films'; there is no other task"),
        ("learning_rates=[0]", r"learning_rates\[0\] is 0.*it must lie in \(0, 1000\]"),
        ("tasks.films.learning_rates=[]", "tasks.films.learning_rates is empty"),
        ("processes=0", "processes is 0; it must be at least 1"),
        ("modles=[a]", "unknown key modles; did you mean 'models'?"),
    ],
)
def test_wrong_settings_name_the_task_and_the_key(pair, message, plan):
    with pytest.raises(RecipeError, match=message):
        plan(pair)


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("tasks.films.data.sorce=a.csv", "^tasks.films: unknown key data.sorce; did you mean 'source'?"),
        ("tasks.films.optimizer.lr=-1", "^tasks.films: optimizer.lr is -1; it must be at least 0"),
        ("tasks.films.train.max_duration=3", "^tasks.films: train.max_duration is 3"),
        ("tasks.pairs.algorithms.unpading={}", "^tasks.pairs: unknown technique algorithms.unpading"),
        ("tasks.films.model.objective=masked_lm", "^tasks.films: "),
        ("tasks.films.metrics=[acuracy]", "^tasks.films.metrics: 'acuracy' .* did you mean 'accuracy'"),
        ("tasks.films.metrics=[spearman]", "'spearman' isn't measured with data.target class; valid: accu"),
        (
            "tasks.films.metrics=[far.f1]",
            "'far.f1' is of data.other_eval.far, which isn't there; it is empty",
        ),
        ("tasks.pairs.metrics=[fra.f1]", "'fra.f1' is of data.other_eval.fra, .* did you mean 'far'"),
        ("models=[./nowhere]", "^models: there is no ./nowhere"),
        ("models=[run.pt]", "^models: there is no run.pt"),
    ],
)
def test_a_wrong_recipe_names_the_task(pair, message, plan):
    with pytest.raises(StudyError, match=message):
        plan(pair).check()


def test_a_folder_without_weights_is_no_model(plan, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(StudyError, match="holds neither weights nor a run's checkpoints"):
        plan(f"models=[{tmp_path / 'empty'}]").check()


def test_data_that_cannot_be_read_names_the_task(plan):
    with pytest.raises(StudyError, match=r"^tasks.films: data.source: no file matches shared.csv"):
        plan().check_data("films")


def test_a_task_has_a_cell_for_each_start_rate_and_seed(plan):
    own = plan()
    assert [cell[1:] for cell in own.cells()] == [
        ("films", "pretrained", 0.01, 1),
        ("films", "pretrained", 0.01, 2),
        ("pairs", "pretrained", 3e-5, 3),
        ("pairs", "films", 3e-5, 3),
    ]
    last = own.cells()[-1]
    assert own.waits_for(last) == own.candidates(last) == [own.cells()[0]]
    assert own.waits_for(own.cells()[2]) == []


def test_a_sweep_waits_for_all_that_tells_the_best_rate(plan):
    swept = plan("learning_rates=[0.1,0.2]", "tasks.pairs.learning_rates=[0.3]")
    cells = swept.cells()
    assert [cell.learning_rate for cell in cells if cell.task == "films"] == [0.1, 0.1, 0.2, 0.2]
    assert [cell.learning_rate for cell in cells if cell.task == "pairs"] == [0.3, 0.3]
    assert swept.waits_for(cells[-1]) == cells[:4]
    assert [cell.seed for cell in swept.candidates(cells[-1])] == [1, 1]


def test_recipes_take_the_shared_data_then_the_task_then_the_overrides(plan):
    own = plan("overrides=[train.global_batch_size=5]", "tasks.pairs.train.global_batch_size=7")
    cells = own.cells()
    first, last = (own.recipes.of(cell, "a/folder") for cell in (cells[0], cells[-1]))
    assert (first.data.source, first.data.max_seq_len, first.data.pair_field) == ("shared.csv", 24, None)
    assert (last.data.source, last.data.max_seq_len, last.data.pair_field) == ("own.csv", 24, "other")
    assert first.train.global_batch_size == last.train.global_batch_size == 5
    assert (first.optimizer.lr, first.seed, last.seed) == (0.01, 1, 3)
    assert last.model.pretrained == last.tokenizer.name == "a/folder"
    assert first.folder == own.recipes.folder(cells[0])
    assert len({own.recipes.folder(cell) for cell in cells}) == len(cells)


def test_runs_of_models_whose_names_share_an_end_are_told_apart(plan, tmp_path):
    """And rates that differ in a late digit."""
    for run in "ab":
        (tmp_path / run).mkdir()
        (tmp_path / run / "ep1-ba5-rank0.pt").write_text("the same weights")
    models = ",".join(f"{tmp_path}/{run}/ep1-ba5-rank0.pt" for run in "ab")
    own = plan(f"models=[{models}]", "learning_rates=[0.01,0.0100000001]")
    cells = own.cells()
    assert (
        len({cell.name for cell in cells}) == len({own.recipes.folder(c) for c in cells}) == len(cells) == 16
    )


def test_a_run_resumes_where_its_recipe_saves_checkpoints(plan):
    for interval, expected in (("null", False), ("2ba", True)):
        own = plan(f"overrides=[train.save_interval={interval}]")
        assert own.recipes.of(own.cells()[0], "a").train.autoresume is expected


def hashes(own):
    return [own.recipes.settings(cell) for cell in own.cells()]


@pytest.mark.parametrize(
    ("pair", "changed"),
    [
        ("overrides=[train.max_duration=2ep]", [True, True, True, True]),
        ("data.max_seq_len=25", [True, True, True, True]),
        ("tasks.pairs.optimizer.eps=1e-5", [False, False, True, True]),
        ("tasks.films.optimizer.eps=1e-5", [True, True, False, True]),
        ("tasks.films.seeds=[2,1]", [False, False, False, True]),
        ("tasks.films.optimizer.lr=0.02", [False, False, False, True]),
        ("tasks.films.metrics=[f1]", [False, False, False, False]),
        ("overrides=[train.save_interval=2ba,data.num_workers=2]", [False, False, False, False]),
        ("overrides=[train.load_path=a.pt]", [True, True, True, True]),
        ("processes=2", [False, False, False, False]),
    ],
)
def test_what_a_result_depends_on_makes_other_cells(pair, changed, plan):
    """Also what the other task, from which the last cell starts, was trained with."""
    assert [a != b for a, b in zip(hashes(plan()), hashes(plan(pair)), strict=True)] == changed


def test_an_edited_recipe_or_other_weights_make_other_cells(plan, tmp_path):
    (tmp_path / "recipe.yaml").write_text((ROOT / "yamls/finetune.yaml").read_text())
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert/model.safetensors").write_bytes(b"one")
    pairs = [f"recipe=[{tmp_path / 'recipe.yaml'}]", f"models=[{tmp_path / 'bert'}]"]
    before = hashes(plan(*pairs))
    assert hashes(plan(*pairs)) == before
    (tmp_path / "recipe.yaml").write_text((ROOT / "yamls/finetune.yaml").read_text() + "\n# said\n")
    assert hashes(plan(*pairs)) == before
    text = (ROOT / "yamls/finetune.yaml").read_text().replace("0.06dur", "0.07dur")
    (tmp_path / "recipe.yaml").write_text(text)
    edited = hashes(plan(*pairs))
    assert not set(edited) & set(before)
    (tmp_path / "bert/model.safetensors").write_bytes(b"two")
    assert not set(hashes(plan(*pairs))) & set(edited)
