"""What a recipe's sections build: techniques, optimizers, schedules, loggers, each option in its place."""

import json
import math
import warnings
from dataclasses import fields

import composer.loggers
import pytest
import torch
from cases import CASES, REQUIRED
from composer.loggers import ConsoleLogger, FileLogger
from composer.utils import MissingConditionalImportError
from trainers import state_at

from cadenza.algorithms import REGISTRY
from cadenza.recipe import RecipeError, build, load
from cadenza.recipe.optimizers import optimizer_for
from cadenza.recipe.schema import Optimizer, Scheduler

OTHER = {
    "batch_size_warmup": {"initial": 16, "until": "3ba", "step": 4},
    "distillation": {"teacher": "runs/other", "weight": 0.4, "temperature": 3.0},
    "masking_schedule": {"initial": 0.4, "final": 0.2, "stages": {"0dur": 0.4, "0.5dur": 0.2}},
    **{name: case.other for name, case in CASES.items()},
}
ALONE = [(name, key, value) for name, options in OTHER.items() for key, value in options.items()]
STRICT = [(name, "strict", False) for name in CASES]
STRICT += [(name, "prove", False) for name, case in CASES.items() if case.proves]


def test_no_technique_and_no_option_is_missing_here():
    listed = {(name, key + "_" * (key == "except")) for name, key, _ in ALONE + STRICT}
    assert listed == {(name, f.name) for name, cls in REGISTRY.items() for f in fields(cls)}


@pytest.mark.parametrize(("name", "key", "value"), ALONE + STRICT)
def test_an_option_of_a_technique_arrives_alone(name, key, value):
    together = {**REQUIRED[name], **({"mode": "intra_document"} if key == "reset_positions" else {})}
    (made,) = build.algorithms(_loaded(name, {**together, key: value}))
    plain = REGISTRY[name](**together)
    attribute = key + "_" * (key == "except")
    assert getattr(made, attribute) == value != getattr(plain, attribute)
    for field in fields(plain):
        if field.name != attribute:
            assert getattr(made, field.name) == getattr(plain, field.name)


def _loaded(name, options):
    objective = {"anchor_attention": "causal_lm", "distillation": "image_classification"}.get(name)
    windows = [f"model.objective={objective}"] if objective else []
    windows += ["train.max_duration=9ba"] if name == "batch_size_warmup" else []
    return load([], [*windows, f"algorithms.{name}={json.dumps(options)}"]).algorithms


def test_techniques_come_in_canonical_order():
    chosen = {name: {} for name in ("low_precision_norm", "alibi", "glu")}
    names = [type(algorithm).__name__ for algorithm in build.algorithms(chosen)]
    assert names == ["GLU", "ALiBi", "LowPrecisionNorm"]


END = 200
TIMES = (0, 1, 19, 20, 21, 77, 110, 199, 200)


def linear(batch):
    return 1 + (0.3 - 1) * (batch - 20) / (END - 20)


def cosine(batch):
    return 0.3 + 0.7 * (1 + math.cos(math.pi * (batch - 20) / (END - 20))) / 2


def cooling(batch):
    """The cosine ends where the last 40 batches begin."""
    cosine = 0.3 + 0.7 * (1 + math.cos(math.pi * min((batch - 20) / (END - 60), 1))) / 2
    return cosine * min((END - batch) / 40, 1)


def square_root(batch):
    """One until the last 40 batches, in which it falls to 0.3 as 1 - sqrt(x) does."""
    return 1.0 if batch < END - 40 else 1 - 0.7 * math.sqrt((batch - END + 40) / 40)


def line(batch):
    return 1 - 0.7 * max(0, batch - END + 40) / 40


FORMULAS = {
    "warmup_stable_decay": square_root,
    "linear_decay_with_warmup": linear,
    "cosine_with_warmup": cosine,
    "constant_with_warmup": lambda batch: 1.0,
    "cosine_with_cooldown": cooling,
}


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("warmup", ["20ba", "0.1dur"])
def test_schedules_against_plain_formulas(name, warmup):
    if (name, warmup) == ("warmup_stable_decay", "0.1dur"):
        return  # refused
    schedule = build.scheduler(Scheduler(name=name, t_warmup=warmup, t_cooldown="40ba", alpha_f=0.3))
    found = [schedule(state_at(batch, f"{END}ba")) for batch in TIMES]
    expected = [batch / 20 if batch < 20 else FORMULAS[name](batch) for batch in TIMES]
    assert found == pytest.approx(expected, abs=1e-12)


def test_the_other_decay():
    section = Scheduler(
        name="warmup_stable_decay", t_warmup="20ba", t_cooldown="0.2dur", alpha_f=0.3, decay="linear"
    )
    found = [build.scheduler(section)(state_at(batch, f"{END}ba")) for batch in TIMES]
    assert found == pytest.approx([batch / 20 if batch < 20 else line(batch) for batch in TIMES], abs=1e-12)


def test_no_cooldown_is_no_decay():
    section = Scheduler(name="warmup_stable_decay", t_warmup="0ba", t_cooldown="0ba")
    assert [build.scheduler(section)(state_at(batch, "9ba")) for batch in (0, 8, 9)] == [1, 1, 1]


def test_the_schedules_are_all_there_are():
    assert set(build.SCHEDULERS) == set(FORMULAS)
    assert {f.name for f in fields(Scheduler)} == {"name", "t_warmup", "t_cooldown", "alpha_f", "decay"}


@pytest.mark.parametrize(
    ("warmup", "duration", "kind", "said"),
    [
        (
            "0.06dur",
            "12ba",
            "LinearScheduler",
            "no warm-up: scheduler.t_warmup 0.06dur of train.max_duration 12ba",
        ),
        ("0.06dur", "17ba", "LinearWithWarmupScheduler", ""),
        ("0.06dur", "1ep", "LinearWithWarmupScheduler", ""),
        ("1ba", "12ba", "LinearWithWarmupScheduler", ""),
        ("0dur", "12ba", "LinearScheduler", ""),
    ],
)
def test_a_share_of_less_than_a_batch_is_no_warm_up(warmup, duration, kind, said, capsys):
    found = build.scheduler(Scheduler(t_warmup=warmup), duration)
    assert type(found).__name__ == kind
    assert capsys.readouterr().out.startswith(said)


@pytest.mark.parametrize("name", ["linear_decay_with_warmup", "cosine_with_warmup", "constant_with_warmup"])
def test_a_warm_up_of_zero_is_the_same_schedule_without_a_warning(name):
    """Composer's schedules with a warm-up warn of one of 0."""
    section = Scheduler(name=name, t_warmup="0ba", alpha_f=0.3)
    options = {"t_warmup": "0ba"} | ({} if name.startswith("constant") else {"alpha_f": 0.3})
    composers = build.SCHEDULERS[name](**options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours = [build.scheduler(section)(state_at(batch, end="20ba")) for batch in range(20)]
    with pytest.warns(UserWarning, match="The warmup duration is 0"):
        theirs = [composers(state_at(batch, end="20ba")) for batch in range(20)]
    assert ours == pytest.approx(theirs)


NAMES = {
    "console": "ConsoleLogger",
    "file": "FileLogger",
    "mlflow": "MLFlowLogger",
    "tensorboard": "TensorboardLogger",
    "wandb": "WandBLogger",
}


def test_loggers_take_their_options(monkeypatch):
    assert build.LOGGERS == NAMES
    for name in NAMES.values():
        assert hasattr(composer.loggers, name)
        monkeypatch.setattr(composer.loggers, name, lambda name=name, **options: (name, options))
    section = {
        "wandb": {"project": "p"},
        "file": None,
        "mlflow": {"tags": {}},
        "console": {},
        "tensorboard": {},
    }
    given = [(NAMES[name], options or {}) for name, options in section.items()]
    assert build.loggers(section) == given


def test_composers_own_loggers(tmp_path):
    section = {"console": {"log_traces": True}, "file": {"filename": "a.txt", "flush_interval": 7}}
    console, file = build.loggers(section)
    assert (type(console), console.should_log_traces) == (ConsoleLogger, True)
    assert (type(file), file.filename_format, file.flush_interval) == (FileLogger, "a.txt", 7)


def test_loggers_that_cannot_be_made_are_named(monkeypatch):
    with pytest.raises(RecipeError, match=r"^loggers\.file: .*unexpected keyword argument 'filname'"):
        build.loggers({"file": {"filname": "a"}})

    def missing(**options):
        raise MissingConditionalImportError("wandb", "wandb")

    monkeypatch.setattr(composer.loggers, "WandBLogger", missing)
    with pytest.raises(RecipeError, match=r"^loggers\.wandb: Composer was installed without wandb") as error:
        build.loggers({"wandb": {}})
    assert "\n" not in str(error.value)


BUILT_BY = {
    Optimizer: lambda section: optimizer_for(section, torch.nn.Linear(1, 1)),
    Scheduler: build.scheduler,
    dict: build.loggers,
}


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (Optimizer(name="adam"), "optimizer.name: 'adam' is unknown; did you mean 'adamw'?"),
        (Scheduler(name="warmup"), "scheduler.name: 'warmup' is unknown; did you mean '"),
        (
            Scheduler(name="xyz"),
            "scheduler.name: 'xyz' is unknown; valid: constant_with_warmup, cosine_with_cooldown, "
            "cosine_with_warmup, linear_decay_with_warmup",
        ),
        ({"qqq": {}}, "loggers.qqq: 'qqq' is unknown; valid: console, file, mlflow, tensorboard, wandb"),
    ],
)
def test_names_that_nothing_has(section, message):
    with pytest.raises(RecipeError) as error:
        BUILT_BY[type(section)](section)
    assert str(error.value).startswith(message)


def test_sizes_at_their_boundaries():
    assert [build.per_device(*args, "key") for args in ((1, 1), (2, 2), (12, 4))] == [1, 1, 3]
    for batch, world in ((0, 1), (-4, 2), (3, 2), (2, 4)):
        with pytest.raises(
            RecipeError, match=f"key is {batch}; it must be a multiple of the {world} devices"
        ):
            build.per_device(batch, world, "key")
    for cuda in (False, True):
        found = [build.microbatch_size(asked, 8, cuda) for asked in (1, 7, 8, 9)]
        assert found == [1, 7, 8, 8]
    for wrong in (0, -1, "8"):
        with pytest.raises(
            RecipeError, match=f"device_train_microbatch_size is {wrong!r}; it must be auto or"
        ):
            build.microbatch_size(wrong, 8, cuda=True)
