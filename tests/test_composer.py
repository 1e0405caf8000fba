"""Under Composer: played on INIT, the same as the functional form, soft when asked, trained whole."""

import copy
import importlib.util
import warnings

import pytest
import torch
from cases import CASES, PAIRS
from composer import Trainer
from composer.algorithms.warnings import NoEffectWarning
from composer.core import Event
from families import DECODERS, batch, build
from trainers import short_trainer

from cadenza.algorithms import (
    GLU,
    REGISTRY,
    ALiBi,
    LowPrecisionNorm,
    MaskingSchedule,
    PostTrainingQuantization,
    VocabPadding,
)
from cadenza.models import composer_model
from cadenza.surgery import NoEffect, Stage, Surgery, SurgeryError, in_order


@pytest.mark.parametrize(("name", "family"), PAIRS)
def test_init_plays_the_functional_form(name, family):
    case, model, twin = CASES[name], build(family), build(family)
    algorithm = case.algorithm()
    state = _State(composer_model(model), algorithm)
    logger = _Logger()
    assert algorithm.match(Event.INIT, state)
    assert not any(algorithm.match(event, state) for event in Event if event != Event.INIT)
    algorithm.apply(Event.INIT, state, logger)
    report = case.apply(composer_model(twin))
    assert len(algorithm.report) == len(report)
    assert logger.logged == {f"{type(algorithm).__name__}/modules": len(report)}
    inputs = batch(family)
    with case.context():
        found, expected = model(**inputs), twin(**inputs)
    assert (found.logits is None) == (name == "chunked_loss")
    key = "loss" if found.logits is None else "logits"
    assert torch.equal(found[key], expected[key])


class _State:
    def __init__(self, model, algorithm):
        from composer.core import Precision

        self.algorithms = [algorithm]
        self.model, self.optimizers, self.precision = model, (), Precision.AMP_BF16

    def load_model_state(self):
        raise NotImplementedError

    load_state_dict = load_model_state


class _Logger:
    def log_hyperparameters(self, values):
        self.logged = values


@pytest.mark.slow
@pytest.mark.parametrize("listing", ["forth", "back"])
def test_a_trainer_trains_every_parameter(listing):
    """Composer's ALiBi takes the MLM head out of the optimizer: after five steps it hadn't moved."""
    model = build("bert")
    algorithms = [ALiBi(), GLU(), VocabPadding(), LowPrecisionNorm()]
    algorithms = algorithms if listing == "forth" else algorithms[::-1]
    decay = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW([{"params": decay}, {"params": rest, "weight_decay": 0.0}], lr=1e-2)
    with pytest.warns(NoEffectWarning, match="with precision fp32 it changes no number"):
        trained = short_trainer(model, algorithms, optimizers=optimizer)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    trained.fit()
    moved = {name for name, p in model.named_parameters() if not torch.equal(before[name], p)}
    assert moved == set(before)
    assert model.cls.predictions.decoder.weight is model.bert.embeddings.word_embeddings.weight


@pytest.mark.slow
@pytest.mark.parametrize("listing", ["forth", "back"])
def test_any_listing_trains_the_same_model(listing):
    model = build("bert", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    algorithms = [ALiBi(), GLU(), VocabPadding()]
    algorithms = algorithms if listing == "forth" else algorithms[::-1]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    short_trainer(model, algorithms, optimizers=optimizer).fit()
    weights = copy.deepcopy(model.state_dict())
    other = build("bert", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    optimizer = torch.optim.AdamW(other.parameters(), lr=1e-2)
    short_trainer(other, in_order(algorithms), optimizers=optimizer, algorithm_passes=[in_order]).fit()
    for name, weight in other.state_dict().items():
        assert torch.equal(weight, weights[name]), name


def test_no_effect_is_an_error_unless_asked_for_softly():
    with pytest.raises(NoEffect, match="found nothing to change in LlamaForCausalLM"):
        short_trainer(build("llama"), [GLU()], "llama")
    with pytest.warns(NoEffectWarning, match="found nothing to change"):
        short_trainer(build("llama"), [GLU(strict=False)], "llama")


def test_names_do_not_collide_with_composers():
    import composer.algorithms

    assert not {cls.__name__ for cls in REGISTRY.values()} & set(composer.algorithms.__all__)
    for cls in REGISTRY.values():  # where Composer looks for what a resume left out
        assert getattr(composer.algorithms, cls.__name__) is cls


def import_anew(package):
    """Run `package` in a module of its own; its submodules stay as they are imported."""
    module = importlib.util.module_from_spec(package.__spec__)
    package.__spec__.loader.exec_module(module)


def test_a_name_that_composer_has_is_refused(monkeypatch):
    import composer.algorithms

    import cadenza.algorithms

    import_anew(cadenza.algorithms)
    monkeypatch.setitem(vars(composer.algorithms), "VocabPadding", object)
    with pytest.raises(ImportError, match="has another VocabPadding; a resume would create that one"):
        import_anew(cadenza.algorithms)


def test_composer_finds_techniques_but_does_not_list_them():
    """What goes through Composer's own algorithms has no settings for ours."""
    import composer.algorithms

    import cadenza.algorithms

    earlier = composer.algorithms.__getattr__
    import_anew(cadenza.algorithms)
    assert earlier is not composer.algorithms.__getattr__
    for cls in REGISTRY.values():
        assert getattr(composer.algorithms, cls.__name__) is cls
    listed = [each for each in vars(composer.algorithms).values() if isinstance(each, type)]
    assert not set(REGISTRY.values()) & set(listed)
    assert not {cls.__name__ for cls in REGISTRY.values()} & set(dir(composer.algorithms))
    with pytest.raises(AttributeError, match=r"module 'composer.algorithms' has no attribute 'Telepathy'"):
        composer.algorithms.Telepathy  # noqa: B018


def test_the_registry_is_the_table_of_cases():
    assert set(REGISTRY) == {*CASES, "batch_size_warmup", "distillation", "masking_schedule"}
    assert {name for name, cls in REGISTRY.items() if issubclass(cls, Surgery)} == set(CASES)
    for name, case in CASES.items():
        assert case.cls is REGISTRY[name]
        assert isinstance(case.cls.stage, Stage)
        assert case.cls.__doc__


@pytest.mark.slow
@pytest.mark.parametrize("family", DECODERS)
def test_decoders_train_too(family):
    trained = short_trainer(build(family), [ALiBi(), VocabPadding()], family)
    trained.fit()
    assert trained.state.timestamp.batch == 3


class _Masker:
    mlm_probability = 0.5

    def mask(self, inputs):
        return inputs

    def __call__(self, examples):
        return {key: torch.stack([e[key] for e in examples]) for key in examples[0]}


def scheduled(schedule, collate_fn, workers=0):
    rows = [{k: v[0] for k, v in batch("bert", seed=s, padding=None).items()} for s in range(8)]
    loader = torch.utils.data.DataLoader(rows, batch_size=2, collate_fn=collate_fn, num_workers=workers)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Trainer(
            model=composer_model(build("bert")),
            train_dataloader=loader,
            algorithms=[schedule],
            max_duration="2ep",
            progress_bar=False,
        )


def test_masking_schedule_reaches_the_collator():
    seen = []

    class Watched(_Masker):
        def __call__(self, examples):
            seen.append(self.mlm_probability)
            return super().__call__(examples)

    collator = Watched()
    scheduled(MaskingSchedule(0.4, 0.2), collator).fit()
    expected = [0.4 - 0.2 * step / 8 for step in range(8)]
    assert seen == pytest.approx(expected)


def test_masking_schedule_is_constant_without_final():
    schedule = MaskingSchedule(0.3)
    assert [schedule.ratio(p) for p in (0.0, 0.5, 1.0)] == [0.3] * 3
    assert MaskingSchedule(0.3, 0.15).ratio(0.5) == pytest.approx(0.225)


def test_masking_schedule_says_what_does_not_fit():
    with pytest.raises(SurgeryError, match=r"initial is 1\.3; it must lie in \(0, 1\)"):
        MaskingSchedule(1.3)
    with pytest.raises(SurgeryError, match="needs a collate_fn with mlm_probability, not function"):
        scheduled(MaskingSchedule(0.3), torch.utils.data.default_collate).fit()

    class Foreign(_Masker):
        mask = property()

    with pytest.raises(SurgeryError, match="can't set the ratio of Foreign in workers"):
        scheduled(MaskingSchedule(0.3), Foreign(), workers=1).fit()


@pytest.mark.parametrize("flip", [False, True])
def test_any_listing_is_played_by_stages(flip):
    """Composer plays INIT in the order of the list, and what a resume left out in the order of a set."""
    listed = [PostTrainingQuantization("int8"), GLU(), ALiBi(), VocabPadding()]
    model, expected = build("bert"), build("bert")
    made = short_trainer(model, listed[::-1] if flip else listed)
    for surgery in (GLU(), VocabPadding(), ALiBi(), PostTrainingQuantization("int8")):
        surgery.operate(expected)
    assert all(len(algorithm.report) > 0 for algorithm in listed)
    inputs = batch("bert")
    assert torch.equal(made.state.model.model.eval()(**inputs).logits, expected(**inputs).logits)
