"""The record of a run, field by field, against what is computed apart from it, and what is said of it."""

import json
import math
import platform
from collections import Counter
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoTokenizer, BertConfig, BertForMaskedLM, LlamaConfig, LlamaForCausalLM

from cadenza.models import resnet
from cadenza.recipe import load, record, run
from cadenza.recipe.image_classification import ImageClassification
from cadenza.recipe.language_modelling import LanguageModelling

RECIPE = """
name: tiny
tokenizer: {vocab_size: 300}
optimizer: {name: sgd, lr: 0.0}
scheduler: {t_warmup: 1ba}
train: {max_duration: 2ba, global_batch_size: 8, eval_batch_size: 5, eval_interval: 1dur, progress_bar: false}
data: {max_seq_len: 24, eval_fraction: 0.2}
"""  # nothing is learned: each loss is that of the model as it ends
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
STILL = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
MASKED = [
    f"model.config={SIZES | STILL}",
    "algorithms={masking_schedule: {}, alibi: {}, vocab_padding: {multiple: 50}}",
]
SOFT = "algorithms={glu: {strict: false}}"  # which finds nothing to change in a Llama
CAUSAL = ["model.objective=causal_lm", "model.model_type=llama", f"model.config={SIZES}", SOFT]
IMAGES = """
name: tiny
model: {objective: image_classification, model_type: resnet10, width: 0.125, stem: small}
optimizer: {name: sgd, lr: 0.0}
scheduler: {t_warmup: 1ba}
train: {max_duration: 2ba, global_batch_size: 32, eval_interval: 1dur, progress_bar: false}
data: {eval_images: 120}
"""


@pytest.fixture
def played(monkeypatch, capsys):
    """Plays a recipe; gives its record, its trainer, its data, and what was said."""

    def played(recipe):
        built, build = [], run.build_trainer

        def noted(task, settings, model, train, evaluation):
            built.append(build(task, settings, model, train, evaluation))
            built.extend((train, evaluation))
            return built[0]

        monkeypatch.setattr(run, "build_trainer", noted)
        capsys.readouterr()
        path = run.train(recipe)
        said, found = capsys.readouterr().out.splitlines(), json.loads(path.read_text())
        trainer, train, evaluation = built
        return SimpleNamespace(
            path=path, record=found, said=said, trainer=trainer, train=train, evaluation=evaluation
        )

    return played


def batches(spec):
    """Of the first epoch, as the model gets them."""
    spec.dataloader.sampler.set_epoch(0)
    return [spec.batch_transforms(batch) for batch in spec.dataloader]


def numel(model):
    return sum(p.numel() for p in model.parameters())


def facts(recipe, stock, after):
    """What a record says before there are results."""
    packages = ("cadenza", "mosaicml", "torch", "transformers", "tokenizers", "datasets", "numpy")
    return {
        "recipe": asdict(recipe),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
        "device": {"kind": "cpu", "world_size": 1},
        "precision": "fp32",
        "parameters": {"stock": stock, "after_surgery": after},
    }


def without_results(record):
    others = ("train", "eval", "surgeries", "commit", "compute", "curve")
    return {key: value for key, value in record.items() if key not in others}


@torch.no_grad()
def judged(model, batches, shift):
    """(cross-entropy, accuracy) over all labelled tokens in float64; a causal model's are `shift`ed."""
    logits, labels = [], []
    for batch in batches:
        inputs = {key: batch[key] for key in ("input_ids", "attention_mask")}
        ends = batch["labels"].shape[1] - shift
        chosen = batch["labels"][:, shift:] != -100
        logits.append(model(**inputs).logits[:, :ends][chosen].double())
        labels.append(batch["labels"][:, shift:][chosen])
    logits, labels = torch.cat(logits), torch.cat(labels)
    hits = (logits.argmax(-1) == labels).double().mean().item()
    return F.cross_entropy(logits, labels).item(), hits


def entropy(tokens):
    counts = Counter(tokens)
    shares = [count / len(tokens) for count in counts.values()]
    return -sum(share * math.log(share) for share in shares)


def check_results(found, played, tokens, shift, accuracy):
    """`train` and `eval` of the record, against the batches that were trained and evaluated on."""
    trained, evaluated = batches(played.train)[:2], batches(played.evaluation)
    model = played.trainer.state.model.model.eval()
    seconds = played.trainer.state.timestamp.total_wct.total_seconds()
    real = sum(int(batch["attention_mask"].sum()) for batch in trained)
    assert 0 < found["train"]["seconds"] == pytest.approx(seconds)
    assert found["train"] == {
        "seconds": found["train"]["seconds"],
        "batches": 2,
        "real_tokens": real,
        "real_tokens_per_second": pytest.approx(real / seconds),
        "loss": pytest.approx(judged(model, trained[1:], shift)[0], rel=1e-5),
    }
    loss, hits = judged(model, evaluated, shift)
    assert found["eval"] == {
        "loss": pytest.approx(loss, rel=1e-5),
        accuracy: pytest.approx(hits),
        "unigram_entropy": pytest.approx(entropy(tokens(evaluated)), rel=1e-9),
    }


def not_special(batches):
    """Tokens other than [PAD], [CLS] and [SEP], as they were before they were masked."""
    ids = torch.cat(
        [torch.where(b["labels"] != -100, b["labels"], b["input_ids"]).flatten() for b in batches]
    )
    return ids[~torch.isin(ids, torch.tensor([0, 2, 3]))].tolist()


def test_a_masked_models_record(recipe, played, tmp_path):
    asked = recipe(*MASKED)
    done = played(asked)
    assert done.path == tmp_path / "runs/tiny/run.json"
    words = len(done.trainer.state.model.tokenizer)
    stock = numel(BertForMaskedLM(BertConfig(**SIZES, vocab_size=words)))
    padding = -words % 50
    after = stock + padding * 33 - 512 * 32  # a row of the table and a bias each; no positions
    assert padding > 0
    assert without_results(done.record) == facts(asked, stock, after)
    check_results(done.record, done, not_special, 0, "masked_accuracy")
    surgeries = done.record["surgeries"]
    assert list(surgeries) == ["VocabPadding(multiple=50)", "ALiBi()"]
    assert {"path": "model"} | _words(words, words + padding) in surgeries["VocabPadding(multiple=50)"]
    assert "model.bert.embeddings.position_embeddings" in {change["path"] for change in surgeries["ALiBi()"]}
    assert done.said == [
        "device_train_microbatch_size: 8 (auto, on a CPU)",
        "precision: fp32 (auto: bfloat16 products are 1x as fast as float32 here; amp_bf16 takes 1.3x)",
        *(f"{name}: {len(changes)} modules changed" for name, changes in surgeries.items()),
        f"parameters: {after:,}",
        *LanguageModelling.summary(done.record).splitlines(),
        f"plot: {done.path.with_name('metrics.png')}",
    ]
    kept = AutoTokenizer.from_pretrained(done.path.parent / "tokenizer")
    assert kept.get_vocab() == done.trainer.state.model.tokenizer.get_vocab()
    assert sorted(path.name for path in done.path.parent.iterdir()) == [
        *("metrics.jsonl", "metrics.png", "recipe.yaml", "run.json", "tokenizer")
    ]


def labelled(batches):
    return torch.cat([b["labels"][b["labels"] != -100] for b in batches]).tolist()


def _words(before, after):
    return {"before": f"BertForMaskedLM of {before} words", "after": f"BertForMaskedLM of {after} words"}


@pytest.mark.filterwarnings("ignore:GLU")
def test_a_causal_models_record(recipe, played):
    asked = recipe(*CAUSAL)
    done = played(asked)
    sizes = {**SIZES, "vocab_size": len(done.trainer.state.model.tokenizer)}
    stock = numel(LlamaForCausalLM(LlamaConfig(**sizes)))
    assert without_results(done.record) == facts(asked, stock, stock)
    assert done.record["surgeries"] == {}
    check_results(done.record, done, labelled, 1, "accuracy")
    assert done.said[-3:-1] == LanguageModelling.summary(done.record).splitlines()


@torch.no_grad()
def plain(model, batches):
    logits = torch.cat([model(batch).double() for batch in batches])
    labels = torch.cat([batch[1] for batch in batches])
    ranks = (logits > logits.gather(1, labels[:, None])).sum(1)
    shares = [(ranks < k).double().mean().item() for k in (1, 5)]
    return F.cross_entropy(logits, labels).item(), *shares


def test_an_image_models_record(played, tmp_path):
    (tmp_path / "tiny.yaml").write_text(IMAGES)
    asked = load([str(tmp_path / "tiny.yaml")], [f"train.run_folder={tmp_path / 'runs'}"])
    done = played(asked)
    found, state = done.record, done.trainer.state
    stock = numel(resnet("resnet10", 0.125, 10, 1, "small"))
    assert without_results(found) == facts(asked, stock, stock)
    assert found["surgeries"] == {}
    loss, top1, top5 = plain(state.model.eval(), batches(done.evaluation))
    fitted = found["train"]["top1"]
    assert found["eval"] == {
        "loss": pytest.approx(loss, rel=1e-5),
        "top1": pytest.approx(top1),
        "top5": pytest.approx(top5),
        "generalization_gap": pytest.approx(fitted - top1),
    }
    seconds = state.timestamp.total_wct.total_seconds()
    trained = batches(done.train)[1:2]
    assert found["train"] == {
        "seconds": pytest.approx(seconds),
        "batches": 2,
        "images_per_second": pytest.approx(64 / seconds),
        "loss": pytest.approx(plain(state.model.train(), trained)[0], rel=1e-5),
        "top1": fitted,
    }
    assert done.said[-3:-1] == ImageClassification.summary(found).splitlines()


TRAIN = {"batches": 1234, "seconds": 61.6, "real_tokens_per_second": 12345.6, "images_per_second": 2345.4}


def test_what_is_said_of_masked_models():
    found = {"loss": 3.1416, "unigram_entropy": 5.0, "masked_accuracy": 0.4567}
    assert LanguageModelling.summary({"train": TRAIN, "eval": found}) == (
        "train: 1234 batches in 62 s, 12,346 real tokens/s\n"
        "eval: masked-token cross-entropy 3.142 nats, 1.858 below the unigram entropy of the same tokens "
        "(5.000); masked accuracy 45.7%"
    )


def test_what_is_said_of_causal_models():
    found = {"loss": 3.1416, "unigram_entropy": 3.0, "accuracy": 0.4567}
    assert LanguageModelling.summary({"train": TRAIN, "eval": found}).splitlines()[1] == (
        "eval: next-token cross-entropy 3.142 nats, 0.142 above the unigram entropy of the same tokens "
        "(3.000); perplexity 23.1, accuracy 45.7%"
    )


@pytest.mark.parametrize(("top5", "said"), [({"top5": 0.98765}, ", top-5 98.77%"), ({}, "")])
def test_what_is_said_of_images(top5, said):
    found = {"loss": 0.5, "top1": 0.81234, "generalization_gap": 0.1, **top5}
    assert ImageClassification.summary({"train": {**TRAIN, "top1": 0.91234}, "eval": found}) == (
        "train: 1234 batches in 62 s, 2,345 images/s\n"
        f"eval: top-1 81.23%{said}, cross-entropy 0.500 nats; top-1 on training images 91.23%, "
        "a gap of 10.00%"
    )


def test_a_package_that_is_not_installed_is_said(monkeypatch):
    def looked_up(name):
        if name == "datasets":
            raise PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(record, "version", looked_up)
    found = record.versions()
    assert (found["datasets"], found["numpy"]) == ("not installed", version("numpy"))
