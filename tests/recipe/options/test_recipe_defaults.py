"""Defaults: what a recipe means where it says nothing."""

from dataclasses import asdict, fields

import pytest
import yaml
from cases import CASES, REQUIRED

from cadenza.algorithms import REGISTRY
from cadenza.data.images.config import ImageConfig
from cadenza.data.labelled.config import LabelledConfig
from cadenza.data.text.config import TextConfig
from cadenza.data.text.tokenizer_config import TokenizerConfig
from cadenza.recipe import load, resolved
from cadenza.recipe.schema import (
    ClassificationRecipe,
    ClassifierModel,
    ImageModel,
    ImageRecipe,
    Model,
    Optimizer,
    Recipe,
    Run,
    Scheduler,
    Train,
)

SECTIONS = {
    Model: {
        "objective": "masked_lm",
        "model_type": "bert",
        "pretrained": None,
        "attention": "sdpa",
        "config": {},
        "gradient_checkpointing": False,
        "lora": {},
    },
    ClassifierModel: {
        "objective": "text_classification",
        "model_type": "bert",
        "pretrained": None,
        "attention": "sdpa",
        "config": {},
        "gradient_checkpointing": False,
    },
    ImageModel: {
        "objective": "image_classification",
        "model_type": "resnet50",
        "width": 1.0,
        "stem": "imagenet",
        "init": "torchvision",
        "channels_last": False,
    },
    Optimizer: {
        "name": "decoupled_adamw",
        "lr": 0.0005,
        "betas": [0.9, 0.98],
        "eps": 0.000001,
        "weight_decay": 0.00001,
        "momentum": 0.9,
        "nesterov": False,
        "muon_lr": None,
        "muon_momentum": 0.95,
        "muon_nesterov": True,
        "muon_adjust_lr": "match_rms_adamw",
        "decay_matrices_only": False,
    },
    Scheduler: {
        "name": "linear_decay_with_warmup",
        "t_warmup": "0.06dur",
        "t_cooldown": "0dur",
        "decay": "1-sqrt",
        "alpha_f": 0.02,
    },
    Train: {
        "max_duration": "1ep",
        "global_batch_size": 256,
        "eval_batch_size": None,
        "device_train_microbatch_size": "auto",
        "clip_norm": None,
        "precision": "auto",
        "eval_interval": "1ep",
        "eval_first": False,
        "run_folder": "runs",
        "save_interval": None,
        "keep_checkpoints": None,
        "load_path": None,
        "load_weights_only": False,
        "trust_load_path": False,
        "autoresume": False,
        "progress_bar": True,
        "deterministic": False,
        "compile_layers": False,
        "parallelism_config": {},
    },
    TokenizerConfig: {
        "name": "wordpiece",
        "vocab_size": 4000,
        "lowercase": False,
        "strip_accents": False,
        "cache_dir": None,
        "new_tokens": None,
    },
    TextConfig: {
        "source": "python_docs",
        "subset": None,
        "split": "train",
        "eval_split": "validation",
        "eval_source": None,
        "other_eval": {},
        "text_field": "text",
        "mixture": None,
        "ids_field": None,
        "stream": True,
        "cache_dir": None,
        "split_text": "file",
        "encoding": "utf-8",
        "on_bad_row": "error",
        "max_seq_len": 128,
        "long_documents": "truncate",
        "mlm_probability": 0.3,
        "eval_mlm_probability": 0.15,
        "masking": "token",
        "mask_replace_prob": 0.8,
        "random_replace_prob": 0.1,
        "deduplicate": False,
        "eval_fraction": 0.05,
        "eval_documents": None,
        "domain_tag": None,
        "domain_field": None,
        "domain_format": "{domain}: ",
        "anchor_token": None,
        "end_of_document": True,
        "boundary_loss": True,
        "upsample_from": None,
        "upsample_times": 1,
        "shuffle_buffer": 10000,
        "num_workers": 0,
        "remote": None,
        "local": None,
    },
    LabelledConfig: {
        "source": "labelled.csv",
        "subset": None,
        "split": "train",
        "eval_split": "validation",
        "eval_source": None,
        "other_eval": {},
        "text_field": "text",
        "pair_field": None,
        "label_field": "label",
        "target": "class",
        "labels": None,
        "encoding": "utf-8",
        "on_bad_row": "error",
        "max_seq_len": 256,
        "eval_fraction": 0.1,
        "split_seed": 17,
        "train_examples": None,
        "eval_examples": None,
        "num_workers": 0,
    },
    ImageConfig: {
        "source": "digits",
        "root": None,
        "split": "train",
        "eval_split": "validation",
        "image_field": "image",
        "label_field": "label",
        "image_size": 224,
        "eval_resize": 256,
        "augmentation": "none",
        "train_images": None,
        "eval_images": None,
        "num_workers": 0,
    },
}
RUN = {
    "name": "run",
    "seed": 17,
    "algorithms": {},
    "optimizer": SECTIONS[Optimizer],
    "scheduler": SECTIONS[Scheduler],
    "train": SECTIONS[Train],
    "loggers": {},
}
TEXT = {
    **RUN,
    "model": SECTIONS[Model],
    "tokenizer": SECTIONS[TokenizerConfig],
    "data": SECTIONS[TextConfig],
}
CLASSES = {
    **RUN,
    "model": SECTIONS[ClassifierModel],
    "tokenizer": SECTIONS[TokenizerConfig],
    "data": SECTIONS[LabelledConfig],
}
IMAGES = {**RUN, "model": SECTIONS[ImageModel], "data": SECTIONS[ImageConfig]}
DEFAULTS = {**SECTIONS, Run: RUN, Recipe: TEXT, ClassificationRecipe: CLASSES, ImageRecipe: IMAGES}

# Each surgery refuses, if not told otherwise, what it can't change.
OPTIONS = {
    "batch_size_warmup": {"initial": 8, "until": "0.1dur", "step": None},
    "distillation": {"teacher": "runs/full", "weight": 0.5, "temperature": 2.0},
    "masking_schedule": {"initial": 0.3, "final": None, "stages": None},
    **{
        name: {"strict": True, **({"prove": True} if case.proves else {}), **case.required, **case.defaults}
        for name, case in CASES.items()
    },
}


@pytest.mark.parametrize("cls", DEFAULTS, ids=lambda cls: cls.__name__)
def test_sections(cls):
    assert asdict(cls()) == DEFAULTS[cls]


@pytest.mark.parametrize("name", REGISTRY)
def test_techniques(name):
    algorithm = REGISTRY[name](**REQUIRED[name])
    assert {f.name: getattr(algorithm, f.name) for f in fields(algorithm)} == OPTIONS[name]


@pytest.mark.parametrize(
    ("objective", "cls", "expected"),
    [
        ("masked_lm", Recipe, TEXT),
        ("causal_lm", Recipe, TEXT),
        ("text_classification", ClassificationRecipe, CLASSES),
        ("image_classification", ImageRecipe, IMAGES),
    ],
)
def test_what_an_objective_alone_makes(objective, cls, expected):
    recipe = load([], [f"model.objective={objective}"])
    assert type(recipe) is cls
    expected = {**expected, "model": {**expected["model"], "objective": objective}}
    assert asdict(recipe) == expected
    assert yaml.safe_load(resolved(recipe)) == expected, "each default is written out"


def test_an_empty_section_is_that_of_defaults(tmp_path):
    (tmp_path / "empty.yaml").write_text("model:\ntrain:\nalgorithms:\nloggers:\ndata: {}\noptimizer:\n")
    assert load([str(tmp_path / "empty.yaml")], []) == Recipe()
    (tmp_path / "nothing.yaml").write_text("")
    assert load([str(tmp_path / "nothing.yaml")], []) == Recipe()


def test_no_two_recipes_share_a_default():
    one, other = Recipe(), Recipe()
    one.optimizer.betas.append(0.5)
    one.model.config["hidden_size"] = 3
    one.algorithms["glu"] = {}
    assert asdict(other) == TEXT
