"""Training by recipe: micro-batches, token counts, the schedule, resume, the record."""

import json

import pytest
import torch
from composer.utils import reproducibility
from trainers import trained

from cadenza.recipe import run
from cadenza.recipe import trainer as trainers

pytestmark = pytest.mark.slow

RECIPE = """
name: tiny
model: {config: {hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 4, intermediate_size: 48}}
tokenizer: {vocab_size: 300}
data: {max_seq_len: 24, long_documents: split, eval_fraction: 0.2}
algorithms:
  {alibi: , glu: , vocab_padding: , unpadding: , sparse_prediction: , flash_attention: , sequence_packing: }
scheduler: {t_warmup: 1ba}
optimizer: {lr: 1e-3}
train: {max_duration: 3ba, global_batch_size: 8, eval_interval: 1dur, progress_bar: false}
"""


def weights_after(recipe, algorithms=(), **dropout):
    """The weights that a recipe trains, without dropout."""
    recipe.model.config.update(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    trainer = trained(recipe)
    return {k: v.detach().clone() for k, v in trainer.state.model.named_parameters()}


def test_micro_batches_do_not_matter(recipe):
    """The loss is weighed by labels, not by samples: Composer's default differs by 7e-4 in the end."""
    sgd = "optimizer.name=adamw", "optimizer.eps=1e-3"
    two = weights_after(recipe("train.device_train_microbatch_size=2", *sgd))
    eight = weights_after(recipe("train.device_train_microbatch_size=8", *sgd))
    for name in eight:
        assert (two[name] - eight[name]).abs().max() < 1e-6, name


def test_micro_batches_would_matter_by_samples(recipe, monkeypatch):
    """The test above can fail: with sample weights the same comparison does."""
    real = trainers.Trainer

    def by_samples(**kwargs):
        return real(**{**kwargs, "accumulate_train_batch_on_tokens": False})

    monkeypatch.setattr(trainers, "Trainer", by_samples)
    sgd = "optimizer.name=adamw", "optimizer.eps=1e-3"
    two = weights_after(recipe("train.device_train_microbatch_size=2", *sgd))
    eight = weights_after(recipe("train.device_train_microbatch_size=8", *sgd))
    assert max((two[name] - eight[name]).abs().max() for name in eight) > 1e-4


def test_tokens_are_real_ones(recipe):
    trainer = trained(recipe("data.long_documents=truncate"))
    counted = trainer.state.timestamp.token.value
    assert 0 < counted < 3 * 8 * 24
    loader = trainer.state.train_dataloader
    loader.sampler.set_epoch(0)
    batches = iter(loader)
    assert counted == sum(int(next(batches)["attention_mask"].sum()) for _ in range(3))


def test_training_is_reproducible(recipe):
    torch.manual_seed(1)
    one = weights_after(recipe())
    torch.manual_seed(2)
    two = weights_after(recipe())
    assert all(torch.equal(one[name], two[name]) for name in one)
    other = weights_after(recipe("seed=18"))
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_a_resume_continues_masks_order_and_schedule(recipe, tmp_path):
    """Four batches, or two and two: the same weights, bit for bit, schedule and all."""
    schedule = "algorithms.masking_schedule={initial: 0.6, final: 0.1}"
    common = schedule, "train.max_duration=4ba", "train.save_interval=2ba", "train.eval_interval=100ba"
    whole = trained(recipe(*common, "name=whole"))
    checkpoint = tmp_path / "runs/whole/checkpoints/ep0-ba2-rank0.pt"
    resumed = trained(recipe(*common, "name=resumed", f"train.load_path={checkpoint}"))
    assert resumed.state.timestamp.batch == 4
    theirs = dict(resumed.state.model.named_parameters())
    for name, weight in whole.state.model.named_parameters():
        assert torch.equal(weight, theirs[name]), name


def test_the_record(recipe, capsys):
    path = run.train(recipe("data.mlm_probability=0.25"))
    record = json.loads(path.read_text())
    assert record["recipe"]["data"]["mlm_probability"] == 0.25
    assert record["recipe"]["optimizer"]["betas"] == [0.9, 0.98], "defaults are written out"
    assert set(record["versions"]) >= {"python", "torch", "transformers", "mosaicml", "cadenza"}
    assert record["train"]["batches"] == 3
    assert record["train"]["seconds"] > 0
    assert record["train"]["real_tokens_per_second"] > 0
    assert record["eval"].keys() == {"loss", "masked_accuracy", "unigram_entropy"}
    assert 0 < record["eval"]["unigram_entropy"] < record["eval"]["loss"], "three batches teach little"
    assert record["parameters"]["stock"] != record["parameters"]["after_surgery"]
    edits = {change["path"] for changes in record["surgeries"].values() for change in changes}
    assert "model.bert.embeddings.position_embeddings" in edits
    said = capsys.readouterr().out
    assert f"{record['eval']['unigram_entropy']:.3f}" in said
    assert (path.parent / "tokenizer" / "tokenizer.json").is_file()
    run.train(recipe())
    assert len(list(path.parent.glob("run-*.json"))) == 1, "the earlier record is kept"


def test_rehearsal_counts_parameters_and_trains_nothing(recipe):
    reports, counts = run.dry_run(recipe())
    assert [report.surgery.split("(")[0] for report in reports] == [
        *("GLU", "VocabPadding", "ALiBi"),
        *("Unpadding", "SparsePrediction", "FlashAttention", "SequencePacking"),
    ]
    words = len(run.task_of(recipe()).tokenizer)
    padding = -words % 64
    assert counts["after_surgery"] == counts["stock"] - 512 * 32 + 2 * (48 * 32 - 48) + padding * 33


def test_the_evaluation_beats_no_context_after_training(recipe):
    """The metric is the mean over labels of cross-entropy: against one computed by hand."""
    trainer = trained(recipe())
    metric = float(trainer.state.eval_metrics["eval"]["LanguageCrossEntropy"].compute())
    spec = trainer.state.evaluators[0].dataloader
    total, count = 0.0, 0
    model = trainer.state.model.model.eval()
    with torch.no_grad():
        for raw in spec.dataloader:
            batch = spec.batch_transforms(raw)
            labels = batch.pop("labels")
            logits = model(**batch).logits[labels != -100].double()
            total += torch.nn.functional.cross_entropy(logits, labels[labels != -100], reduction="sum").item()
            count += int((labels != -100).sum())
    assert metric == pytest.approx(total / count, rel=1e-5)


def test_seed_all_is_what_makes_the_model(recipe):
    reproducibility.seed_all(5)
    one = run.task_of(recipe()).model()
    reproducibility.seed_all(6)
    two = run.task_of(recipe()).model()
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
