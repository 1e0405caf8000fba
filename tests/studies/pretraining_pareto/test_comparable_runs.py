"""Losses of which runs are compared, and which runs are seeds of one recipe."""

import argparse
from pathlib import Path

import made_runs
import pytest

from cadenza.studies.checks import StudyError
from cadenza.studies.pretraining_pareto.comparing import refuse_other_evaluation
from cadenza.studies.pretraining_pareto.groups import Group, group, lines
from cadenza.studies.pretraining_pareto.runs import read_all


@pytest.fixture
def pair(tmp_path):
    """Two runs; the second one has these changes."""

    def pair(first=None, **changes):
        one = made_runs.run(tmp_path / "a", {2: 3.0}, **(first or {}))
        return read_all([one, made_runs.run(tmp_path / "b", {2: 3.0}, **changes)])

    return pair


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model.objective", "causal_lm"),
        ("data.source", "other.txt"),
        ("data.eval_source", "other.txt"),
        ("data.eval_split", "test"),
        ("data.eval_fraction", 0.2),
        ("data.eval_documents", 10),
        ("data.eval_mlm_probability", 0.3),
        ("data.masking", "whole_word"),
        ("data.mask_replace_prob", 0.7),
        ("data.max_seq_len", 64),
        ("data.long_documents", "split"),
        ("data.mixture", [{"source": "x", "weight": 1.0}]),
    ],
)
def test_losses_of_other_evaluations_are_refused(pair, key, value):
    runs = pair(**{key.replace(".", "__"): value})
    with pytest.raises(StudyError, match=rf"can't be compared: {key} is .+ in .+a, but .+ in .+b; compare"):
        refuse_other_evaluation(runs)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", 18),
        ("data.mlm_probability", 0.15),
        ("data.num_workers", 4),
        ("data.other_eval", {"x": "x.txt"}),
        ("data.cache_dir", "there"),
        ("optimizer.lr", 0.1),
        ("tokenizer.cache_dir", "there"),
        ("model.config.hidden_size", 32),
        ("algorithms.alibi", {}),
        ("train.max_duration", "9ba"),
    ],
)
def test_what_concerns_training_alone_is_not(pair, key, value):
    refuse_other_evaluation(pair(**{key.replace(".", "__"): value}))


def test_other_training_text_is_not_where_the_evaluation_has_its_own(pair):
    """With a tokenizer that isn't trained on the text."""
    same = {"data__eval_source": "eval.txt", "tokenizer__name": "bert-base-uncased"}
    refuse_other_evaluation(pair(same, **same, data__source="other.txt", data__eval_fraction=0.3))


def test_a_tokenizer_that_is_trained_on_other_text_is_refused(pair):
    same = {"data__eval_source": "eval.txt"}
    with pytest.raises(StudyError, match="have other tokenizers"):
        refuse_other_evaluation(pair(same, **same, data__source="other.txt"))


@pytest.mark.parametrize(("key", "value"), [("name", "byte_bpe"), ("vocab_size", 500), ("lowercase", True)])
def test_other_options_of_the_tokenizer_are_refused_while_a_run_trains(pair, key, value):
    with pytest.raises(StudyError, match="have other tokenizers"):
        refuse_other_evaluation(pair(ended=False, **{f"tokenizer__{key}": value}))


def test_the_kept_tokenizers_decide_where_both_runs_have_ended(pair):
    words = {"model": {"vocab": {"a": 0}}}
    refuse_other_evaluation(pair({"words": words}, words={**words, "padding": 3}, tokenizer__name="a-folder"))


def test_kept_tokenizers_that_differ_are_refused(pair):
    with pytest.raises(StudyError, match="have other tokenizers"):
        refuse_other_evaluation(pair({"words": {"model": "a"}}, words={"model": "b"}))


def test_a_recipe_of_an_earlier_version_has_the_defaults(pair):
    runs = pair()
    del runs[1].recipe["data"]["masking"]
    refuse_other_evaluation(runs)


def test_groups_and_runs_that_are_in_none(tmp_path):
    folders = [made_runs.run(tmp_path / f"a-{seed}", {2: 3.0}, seed=seed) for seed in (17, 18)]
    other = made_runs.run(tmp_path / "b", {2: 3.0})
    runs = read_all([other, *folders])
    found = lines(runs, [Group("a", folders)])
    assert [(line.name, [run.name for run in line.runs]) for line in found] == [
        ("b", ["b"]),
        ("a", ["a-17", "a-18"]),
    ]


def test_a_group_names_seeds_of_one_recipe(pair):
    runs = pair(seed=18, optimizer__lr=0.1)
    with pytest.raises(
        StudyError, match=r"--group x: .+b is no other seed of .+a \(optimizer\.lr: .+, here 0\.1"
    ):
        lines(runs, [Group("x", [run.folder for run in runs])])


def test_a_run_is_in_one_group_once(pair):
    first, second = pair(seed=18)
    for groups in (
        [Group("x", [first.folder, first.folder])],
        [Group("x", [first.folder]), Group("y", [first.folder])],
    ):
        with pytest.raises(StudyError, match="--group: a is named twice"):
            lines([first, second], groups)


def test_a_group_has_a_name_of_its_own(pair):
    first, second = pair(seed=18)
    with pytest.raises(StudyError, match="'b' names two lines"):
        lines([first, second], [Group("b", [first.folder])])
    assert [line.name for line in lines([first, second], [Group("a", [first.folder])])] == ["a", "b"]


def test_how_a_group_is_written():
    assert group("base=runs/a,runs/b") == ("base", [Path("runs/a"), Path("runs/b")])
    for text in ("base", "=a", "base=", "base=,", ""):
        with pytest.raises(
            argparse.ArgumentTypeError, match="it must be like base=runs/base-17,runs/base-18"
        ):
            group(text)
