"""The evaluation is the track's whatever the recipe says, and the digest tells what it depends on."""

from dataclasses import replace

import pytest
import torch
from evaluation import Pretraining
from records import found
from tracks import Track

from cadenza.recipe.errors import RecipeError


def task_of(place, name, *pairs, track=None, **values):
    if not (place.folder / "records/tiny" / name).is_dir():
        place.make(name, **{"optimizer.lr": 0.1, **values})
    return Pretraining(found(name, place.track).recipe(*pairs), track or place.track)


def batches(task):
    _, evaluation = task.data()
    return [evaluation.batch_transforms(batch) for batch in evaluation.dataloader]


def test_the_evaluation_follows_neither_recipe_nor_seed(place):
    one = batches(task_of(place, "01_a", "seed=1"))
    changes = {"data.max_seq_len": 10, "data.mlm_probability": 0.4, "train.global_batch_size": 3}
    other = batches(task_of(place, "02_b", "seed=2", "train.eval_batch_size=5", **changes))
    assert len(one) == len(other) > 1
    for ours, theirs in zip(one, other, strict=True):
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    masked = sum((batch["labels"] != -100).sum() for batch in one)
    real = sum(batch["attention_mask"].sum() - 2 * len(batch["input_ids"]) for batch in one)
    assert 0.05 < masked / real < 0.3
    assert max(batch["input_ids"].shape[1] for batch in one) > 10, "longer than this recipe's rows"


def test_training_follows_the_recipe(place):
    train, _ = task_of(place, "02_b", **{"data.max_seq_len": 10, "train.global_batch_size": 3}).data()
    assert next(iter(train.dataloader))["input_ids"].shape <= (3, 10)


def test_the_digest_tells_text_vocabulary_and_masks(place, text):
    first = task_of(place, "01_a", "seed=1").digest()
    assert task_of(place, "02_b", "seed=2", **{"data.mlm_probability": 0.4}).digest() == first
    assert task_of(place, "01_a", track=replace(place.track, seed=18)).digest() != first, "other masks"
    lines = text.read_text().splitlines()
    text.write_text("\n".join([*lines[:-1], lines[-1].replace("number", "numbers")]) + "\n")
    assert task_of(place, "01_a").digest() != first, "another word in one document"


def test_the_digest_of_a_stream_does_not_read_it(place, monkeypatch):
    import evaluation

    monkeypatch.setattr(evaluation, "streamed", lambda cfg, train: True)
    monkeypatch.setattr(evaluation, "documents", None)
    assert task_of(place, "01_a").digest()


def test_a_model_with_too_few_positions_is_refused(place):
    values = {"model.config.max_position_embeddings": 12, "data.max_seq_len": 12}
    task = task_of(place, "01_a", **values)
    with pytest.raises(RecipeError, match="the model has 12 positions; the evaluation's rows have 16 tokens"):
        task.check(task.model())


def test_tracks_refuse_other_machines(monkeypatch):
    from cadenza.studies.checks import StudyError

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(StudyError, match="needs a CUDA device, and there is none: NOT MEASURED HERE"):
        Track("x", None, (), None, cuda=True).refuse_other_machine()
    with pytest.raises(StudyError, match="track x needs 4096 cores; there are"):
        Track("x", None, (), 4096).refuse_other_machine()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(StudyError, match="track x is for CPUs"):
        Track("x", None, (), 1).refuse_other_machine()
