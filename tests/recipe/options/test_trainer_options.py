"""Every option of a recipe's `train` section, its name and its seed, in what Composer's Trainer is told."""

from dataclasses import fields
from types import SimpleNamespace

import pytest
import torch
from composer.algorithms import GradientClipping
from composer.utils import dist

from cadenza.data import TokenizedStream
from cadenza.recipe import RecipeError, language_modelling, load, run
from cadenza.recipe import image_classification as images
from cadenza.recipe import trainer as trainers
from cadenza.recipe.schema import ImageRecipe, Recipe, Train

MODEL = torch.nn.Linear(2, 3)


def spec(dataset):
    return SimpleNamespace(dataloader=SimpleNamespace(dataset=dataset))


LIST = spec([1, 2])
TASKS = {Recipe: language_modelling.LanguageModelling, ImageRecipe: images.ImageClassification}


@pytest.fixture
def told(tmp_path, monkeypatch):
    """The arguments of the Trainer of a recipe; of parts, what can be compared."""

    def told(*pairs, cuda=False, evaluation=LIST):
        given = {}
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        trainer = SimpleNamespace(state=SimpleNamespace(callbacks=[]))
        monkeypatch.setattr(trainers, "Trainer", lambda **kwargs: given.update(kwargs) or trainer)
        monkeypatch.setattr(dist, "broadcast_object_list", lambda objects: None)
        recipe = load([], [f"train.run_folder={tmp_path}", *pairs])
        task, settings = TASKS[type(recipe)](recipe), trainers.trainer_settings(recipe)
        trainers.build_trainer(task, settings, MODEL, "training", evaluation)
        return {**given, **_seen(given)}

    return told


def _seen(given):
    optimizer, scheduler = given["optimizers"], given["schedulers"]
    resuming, stops, *more = given["callbacks"]
    parallel = given["parallelism_config"]
    return {
        "optimizers": (type(optimizer).__name__, optimizer.param_groups[0]["lr"]),
        "schedulers": (type(scheduler).__name__, scheduler.alpha_f),
        "callbacks": (resuming.seed, str(stops.folder), [type(each).__name__ for each in more]),
        "algorithms": [_named(each) for each in given["algorithms"]],
        "loggers": [type(each).__name__ for each in given["loggers"]],
        "parallelism_config": parallel and (parallel.fsdp or parallel.fsdp2).mixed_precision,
    }


def _named(algorithm):
    """The repr of a technique; Composer's own says nothing of its options."""
    if isinstance(algorithm, GradientClipping):
        return "GradientClipping", algorithm.clipping_type, algorithm.clipping_threshold
    return repr(algorithm)


def test_what_the_trainer_is_told_by_default(told, tmp_path):
    assert told() == {
        "model": MODEL,
        "train_dataloader": "training",
        "eval_dataloader": LIST,
        "eval_subset_num_batches": -1,
        "optimizers": ("DecoupledAdamW", 5e-4),
        "progress_bar": False,
        "accumulate_train_batch_on_tokens": True,
        "run_name": "run",
        "seed": 17,
        "algorithms": [],
        "schedulers": ("LinearWithWarmupScheduler", 0.02),
        "loggers": [],
        "callbacks": (17, f"{tmp_path}/run", ["Metrics", "Progress"]),
        "precision": "fp32",
        "device_train_microbatch_size": 256,
        "max_duration": "1ep",
        "eval_interval": "1ep",
        "deterministic_mode": False,
        "parallelism_config": None,
        "save_folder": None,
        "save_interval": "1ep",
        "save_num_checkpoints_to_keep": -1,
        "save_overwrite": True,
        "load_path": None,
        "load_weights_only": False,
        "autoresume": False,
    }


BAR = ["Metrics", "Progress"]
NEEDS_CUDA = ("precision", "parallelism_config")
# What a pair changes of the above; {} stands for the run folder.
CHANGES = {
    "name": ("name=a/b", {"run_name": "a/b", "callbacks": (17, "{}/a/b", BAR)}),
    "seed": ("seed=3", {"seed": 3, "callbacks": (3, "{}/run", BAR)}),
    "algorithms": ("algorithms.vocab_padding.multiple=8", {"algorithms": ["VocabPadding(multiple=8)"]}),
    "loggers": ("loggers.console={}", {"loggers": ["ConsoleLogger"]}),
    "optimizer": ("optimizer={name: sgd, lr: 0.5}", {"optimizers": ("SGD", 0.5)}),
    "scheduler": ("scheduler.alpha_f=0.5", {"schedulers": ("LinearWithWarmupScheduler", 0.5)}),
    "max_duration": ("train.max_duration=70ba", {"max_duration": "70ba"}),
    "global_batch_size": ("train.global_batch_size=12", {"device_train_microbatch_size": 12}),
    "device_train_microbatch_size": (
        "train.device_train_microbatch_size=3",
        {"device_train_microbatch_size": 3},
    ),
    "clip_norm": ("train.clip_norm=0.3", {"algorithms": [("GradientClipping", "norm", 0.3)]}),
    "precision": ("train.precision=amp_fp16", {"precision": "amp_fp16"}),
    "eval_interval": ("train.eval_interval=3ba", {"eval_interval": "3ba"}),
    "run_folder": ("train.run_folder=else", {"callbacks": (17, "else/run", BAR)}),
    "save_interval": (
        "train.save_interval=5ba",
        {"save_interval": "5ba", "save_folder": "{}/run/checkpoints"},
    ),
    "load_path": ("train.load_path=a.pt", {"load_path": "a.pt"}),
    "load_weights_only": (
        "train={load_path: a.pt, load_weights_only: true}",
        {"load_path": "a.pt", "load_weights_only": True},
    ),
    "keep_checkpoints": ("train.keep_checkpoints=2", {"save_num_checkpoints_to_keep": 2}),
    "autoresume": ("train.autoresume=true", {"autoresume": True, "save_overwrite": False}),
    "progress_bar": ("train.progress_bar=false", {"callbacks": (17, "{}/run", ["Metrics"])}),
    "eval_first": (
        "train.eval_first=true",
        {"callbacks": (17, "{}/run", ["Metrics", "FirstEvaluation", "Progress"])},
    ),
    "deterministic": ("train.deterministic=true", {"deterministic_mode": True}),
    "parallelism_config": (
        "train.parallelism_config={fsdp2: {mixed_precision: PURE}}",
        {"parallelism_config": "PURE"},
    ),
    "eval_batch_size": ("train.eval_batch_size=4", {}),  # for the loader, below
    "trust_load_path": ("train.trust_load_path=true", {}),  # for tests/test_checkpoints.py
}


def test_no_option_is_missing_here():
    """Those of the sections `model`, `tokenizer` and `data` and compiled layers have files of their own."""
    elsewhere = {"model", "tokenizer", "data", "train", "compile_layers"}
    assert set(CHANGES) == {f.name for cls in (Recipe, Train) for f in fields(cls)} - elsewhere


@pytest.mark.parametrize("option", CHANGES)
def test_an_option_arrives_and_changes_nothing_else(option, told, tmp_path):
    pair, changes = CHANGES[option]
    cuda = option in NEEDS_CUDA
    before, after = told(cuda=cuda), told(pair, cuda=cuda)
    assert before.keys() == after.keys()
    changed = {key: value for key, value in after.items() if value != before[key]}
    assert changed == {key: _at(tmp_path, value) for key, value in changes.items()}


def _at(folder, value):
    if isinstance(value, tuple):
        return tuple(_at(folder, each) for each in value)
    return value.replace("{}", str(folder)) if isinstance(value, str) else value


def test_on_cuda_the_device_chooses(told):
    before, after = told(), told(cuda=True)
    changed = {key: value for key, value in after.items() if value != before[key]}
    assert changed == {"precision": "amp_bf16", "device_train_microbatch_size": "auto"}


def test_checkpoints_are_in_the_folder_of_the_name(told):
    pairs = "name=a/b", "train.run_folder=else", "train.save_interval=1ep"
    assert told(*pairs)["save_folder"] == "else/a/b/checkpoints"


def test_a_loss_weighs_by_labels_or_by_images(told):
    for objective, by_tokens in (("masked_lm", 1), ("causal_lm", 1), ("image_classification", 0)):
        given = told(f"model.objective={objective}")
        assert given["accumulate_train_batch_on_tokens"] is bool(by_tokens), objective


def test_a_stream_is_evaluated_to_its_end(told):
    assert told(evaluation=spec(TokenizedStream([], None, 8, False)))["eval_subset_num_batches"] == 10**9


@pytest.mark.parametrize(("world", "each"), [(1, 12), (2, 6), (4, 3)])
def test_devices_share_a_batch(world, each, told, monkeypatch):
    monkeypatch.setattr(dist, "get_world_size", lambda: world)
    assert told("train.global_batch_size=12")["device_train_microbatch_size"] == each
    if world > 1:
        message = f"train.global_batch_size is 13; it must be a multiple of the {world} devices"
        with pytest.raises(RecipeError, match=message):
            told("train.global_batch_size=13")


BUILDERS = {
    "masked_lm": (language_modelling, "build_dataspec"),
    "causal_lm": (language_modelling, "build_causal_dataspec"),
    "image_classification": (images, "build_image_dataspec"),
}


@pytest.fixture
def loaders(monkeypatch):
    """What the loaders of a recipe are built with: first those of training, then those of evaluation."""

    def loaders(objective, *pairs, algorithms=(), world=2):
        built = []
        monkeypatch.setattr(dist, "get_world_size", lambda: world)
        module, name = BUILDERS[objective]
        monkeypatch.setattr(module, "show_unknown", lambda *data: None, raising=False)
        monkeypatch.setattr(module, name, lambda *args, **kwargs: built.append((args, kwargs)) or len(built))
        recipe = load([], [f"model.objective={objective}", "seed=3", *pairs])
        task = run.task_of(recipe)
        vars(task)["tokenizer"] = "tokenizer"
        assert task.data(algorithms) == (1, 2)
        return recipe, built

    return loaders


@pytest.mark.parametrize("objective", BUILDERS)
@pytest.mark.parametrize(("pairs", "sizes"), [([], (6, 6)), (["train.eval_batch_size=8"], (6, 4))])
def test_loaders_take_batch_sizes_and_the_seed(objective, pairs, sizes, loaders):
    recipe, built = loaders(objective, "train.global_batch_size=12", *pairs)
    for train, size, (args, kwargs) in zip((True, False), sizes, built, strict=True):
        given = {"train": train, "batch_size": size, "seed": 3}
        if objective == "image_classification":
            assert args == (recipe.data,)
        else:
            given |= {"cfg": recipe.data, "tokenizer": "tokenizer"}
        if objective == "masked_lm" and train:
            given["packed"] = False
        assert kwargs == given


def test_an_algorithm_packs_the_rows_of_training_alone(loaders):
    plain, packs = SimpleNamespace(), SimpleNamespace(packs_rows=True)
    for algorithms, packed in (([plain], False), ([plain, packs], True)):
        _, ((_, train), (_, evaluation)) = loaders("masked_lm", algorithms=algorithms)
        assert train["packed"] is packed
        assert "packed" not in evaluation


@pytest.mark.parametrize("objective", BUILDERS)
@pytest.mark.parametrize("key", ["train.global_batch_size", "train.eval_batch_size"])
def test_a_batch_that_devices_cannot_share_is_named(objective, key, loaders):
    with pytest.raises(RecipeError, match=f"{key} is 15; it must be a multiple of the 2 devices"):
        loaders(objective, f"{key}=15")


@pytest.mark.parametrize(("cuda", "device"), [(True, "gpu"), (False, "cpu")])
def test_processes_meet_on_their_device_before_there_is_a_model(cuda, device, monkeypatch):
    seen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(dist, "initialize_dist", seen.append)
    monkeypatch.setattr(run, "LanguageModelling", lambda recipe: seen.append(recipe) or "task")
    assert run.task_of("recipe") == "task"
    assert seen == [device, "recipe"]


@pytest.mark.parametrize("rank", [0, 1])
def test_the_first_rank_says_what_the_device_chose(rank, told, capsys, monkeypatch):
    monkeypatch.setattr(dist, "get_global_rank", lambda: rank)
    said = []
    for cuda in (False, True):
        told("train.global_batch_size=12", cuda=cuda)
        said.append(capsys.readouterr().out)
    cpu = "device_train_microbatch_size: 12 (auto, on a CPU)\n"
    cpu += "precision: fp32 (auto: bfloat16 products are 1x as fast as float32 here; amp_bf16 takes 1.3x)\n"
    gpu = "device_train_microbatch_size: auto (auto, on a CUDA device)\n"
    gpu += "precision: amp_bf16 (auto, on a CUDA device)\n"
    assert said == ([cpu, gpu] if rank == 0 else ["", ""])


def test_what_the_recipe_says_is_not_repeated(told, capsys):
    told("train.precision=fp32", "train.device_train_microbatch_size=4")
    assert capsys.readouterr().out == ""
