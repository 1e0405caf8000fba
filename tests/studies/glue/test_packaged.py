"""yamls/glue.yaml: each of GLUE's tasks is a recipe, with the hyperparameters of MosaicBERT's reference."""

import pytest
from paths import ROOT

from cadenza.recipe import load_settings
from cadenza.studies.glue.plan import Plan
from cadenza.studies.glue.settings import Glue

ALL = [19, 8364, 717, 10536, 90166]
PAIR = ("sentence1", "sentence2")
# lr, weight decay, batch, epochs, seeds, metrics, fields
EXPECTED = {
    "mnli": (5e-5, 5e-6, 48, 3, 1, ["accuracy", "mismatched.accuracy"], ("premise", "hypothesis")),
    "qqp": (3e-5, 3e-6, 16, 5, 1, ["accuracy", "f1"], ("question1", "question2")),
    "qnli": (1e-5, 1e-6, 16, 10, 1, ["accuracy"], ("question", "sentence")),
    "sst2": (3e-5, 3e-6, 16, 3, 3, ["accuracy"], ("sentence", None)),
    "cola": (5e-5, 5e-6, 32, 10, 4, ["mcc"], ("sentence", None)),
    "rte": (1e-5, 1e-5, 16, 3, 5, ["accuracy"], PAIR),
    "mrpc": (8e-5, 8e-6, 32, 10, 5, ["accuracy", "f1"], PAIR),
    "stsb": (3e-5, 3e-6, 32, 10, 5, ["spearman"], PAIR),
}


@pytest.fixture(scope="module")
def plan():
    pairs = [f"recipe=[{ROOT / 'yamls/finetune.yaml'}]", "models=[bert-base-uncased]"]
    return Plan(load_settings(Glue, [str(ROOT / "yamls/glue.yaml")], pairs))


def test_the_tasks_are_those_of_glue(plan):
    plan.check()
    assert list(plan.cfg.tasks) == list(EXPECTED)
    after = {name: plan.cfg.task(name).after for name in EXPECTED}
    assert {name for name, source in after.items() if source == "mnli"} == {"rte", "mrpc", "stsb"}
    assert len(plan.cells()) == 25 + 15


@pytest.mark.parametrize("name", EXPECTED)
def test_a_task_has_the_hyperparameters_of_the_reference(name, plan):
    lr, decay, batch, epochs, seeds, metrics, fields = EXPECTED[name]
    recipe, task = plan.recipes.of_task(name), plan.cfg.task(name)
    optimizer, train, data, number = recipe.optimizer, recipe.train, recipe.data, name == "stsb"
    assert (optimizer.lr, optimizer.weight_decay) == (lr, decay)
    assert (optimizer.name, optimizer.betas, optimizer.eps) == ("decoupled_adamw", [0.9, 0.98], 1e-6)
    assert (recipe.scheduler.t_warmup, recipe.scheduler.alpha_f) == ("0.06dur", 0.0)
    assert (train.global_batch_size, train.max_duration) == (batch, f"{epochs}ep")
    assert (task.seeds, task.metrics) == (ALL[:seeds], metrics)
    assert (data.source, data.subset, data.split) == ("nyu-mll/glue", name, "train")
    assert (data.text_field, data.pair_field, data.max_seq_len) == (*fields, 256)
    assert data.eval_split == ("validation_matched" if name == "mnli" else "validation")
    assert data.other_eval == ({"mismatched": "validation_mismatched"} if name == "mnli" else {})
    assert (data.target, train.precision) == (("number", "fp32") if number else ("class", "auto"))
    assert recipe.model.config == {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.0}
