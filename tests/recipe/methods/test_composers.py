"""Composer's own algorithms in a recipe: their names, their options, for which models."""

import composer.algorithms
import pytest
from composer.core import Time

from cadenza.algorithms import REGISTRY
from cadenza.recipe import RecipeError, build, load
from cadenza.recipe.methods import COMPOSERS, REPLACING, options_of
from cadenza.recipe.methods.composers import IMAGES as ONLY_IMAGES
from cadenza.recipe.methods.values import RANGES

IMAGES = "model={objective: image_classification, model_type: resnet10}"
NEEDED = {
    "gradient_clipping": "clipping_type: norm, clipping_threshold: 1.0",
    "seq_length_warmup": "max_seq_length: 128",
}
FOR_IMAGES = ("cutmix", "label_smoothing", "blurpool", "weight_standardization")


def loaded(pair, *more):
    return load([], [f"algorithms={{{pair}}}", *more])


@pytest.mark.parametrize("name", COMPOSERS)
def test_each_is_built_with_composers_defaults(name):
    recipe = loaded(f"{name}: {{{NEEDED.get(name, '')}}}", *[IMAGES] * (name in ONLY_IMAGES))
    (built,) = build.algorithms(recipe.algorithms)
    assert isinstance(built, getattr(composer.algorithms, COMPOSERS[name].__name__))


def test_names_and_ranges_are_of_algorithms_that_are_there():
    assert not COMPOSERS.keys() & REGISTRY.keys()
    assert set(REPLACING) < COMPOSERS.keys()
    for name, ranges in RANGES.items():
        assert set(ranges) <= {
            f.name for f in options_of(name, COMPOSERS[name]).__dataclass_fields__.values()
        }


def test_options_arrive():
    recipe = loaded("ema: {half_life: 3ba}, gradient_clipping: {clipping_type: value, clipping_threshold: 2}")
    ema, clipping = build.algorithms(recipe.algorithms)
    assert ema.half_life == Time.from_batch(3)
    assert (clipping.clipping_type, clipping.clipping_threshold) == ("value", 2)


def test_those_that_replace_modules_come_before_techniques_and_others_after():
    recipe = loaded("ema: {}, quantization_aware_training: {}, blurpool: {}", IMAGES)
    names = [type(each).__name__ for each in build.algorithms(recipe.algorithms)]
    assert names == ["BlurPool", "QuantizationAwareTraining", "EMA"]


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("emma: {}", "unknown technique algorithms.emma; did you mean 'ema'?"),
        ("alibbi: {}", "did you mean 'alibi'?"),
        ("gradient_cliping: {}", "did you mean 'gradient_clipping'?"),
        ("ema: {half_live: 3ba}", "unknown key algorithms.ema.half_live; did you mean 'half_life'?"),
        ("ema: {half_life: 3}", "algorithms.ema.half_life is 3 (int); it must be text or null"),
        ("ema: {half_life: x}", "algorithms.ema.half_life is 'x'; it must be a number with a unit"),
        ("ema: {half_life: 0ba}", "algorithms.ema.half_life is 0ba; it must be above 0"),
        ("ema: {ema_start: 2dur}", "algorithms.ema.ema_start is 2dur; training ends at 1dur"),
        ("ema: {ema_start: -1ba}", "algorithms.ema.ema_start is -1ba; it must be at least 0"),
        ("ema: {half_life: null}", "algorithms.ema: Either half_life or smoothing must be specified"),
        ("ema: {half_life: null, smoothing: .9}", "algorithms.ema.update_interval is missing"),
        (
            "ema: {half_life: null, smoothing: 2., update_interval: 1ba}",
            "smoothing is 2.0; it must be from 0",
        ),
        ("gradient_clipping: {}", "algorithms.gradient_clipping.clipping_type is missing; it must be text"),
        (
            "gradient_clipping: {clipping_type: l2, clipping_threshold: 1}",
            "'l2'; it must be adaptive or norm",
        ),
        ("gradient_clipping: {clipping_type: norm, clipping_threshold: 0}", "must be above 0"),
        (
            "gradient_clipping: {clipping_type: norm, clipping_threshold: .nan}",
            "nan; it must be a finite",
        ),
        (
            "gradient_clipping: {clipping_type: norm, clipping_threshold: .inf}",
            "inf; it must be a finite",
        ),
        ("sam: {interval: 0}", "algorithms.sam.interval is 0; it must be at least 1"),
        ("sam: {rho: abc}", "algorithms.sam.rho is 'abc' (str); it must be a number"),
        ("sam: 3", "algorithms.sam must be a mapping, not 3"),
        ("swa: {swa_start: 0.9dur, swa_end: 0.5dur}", "algorithms.swa: swa_end must be > swa_start"),
        ("swa: {anneal_strategy: foo}", "algorithms.swa: anneal_strategy must be one of"),
        (
            "layer_freezing: {freeze_start: 2}",
            "algorithms.layer_freezing.freeze_start is 2.0; it must be from 0",
        ),
        ("seq_length_warmup: {}", "max_seq_length is None; it must be data.max_seq_len, 128"),
        ("seq_length_warmup: {max_seq_length: 64}", "max_seq_length is 64; it must be data.max_seq_len, 128"),
        ("seq_length_warmup: {max_seq_length: 128, step_size: 0}", "step_size is 0; it must be at least 1"),
        ("cutmix: {}", "algorithms.cutmix is for images; this recipe is for language models"),
        ("label_smoothing: {input_key: 1}", "unknown key algorithms.label_smoothing.input_key"),
    ],
)
def test_what_is_wrong_is_named_with_its_source(pair, message):
    with pytest.raises(RecipeError) as error:
        loaded(pair)
    assert str(error.value).startswith("command line: ")
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("seq_length_warmup: {max_seq_length: 128}", "is for language models; this recipe is for images"),
        (
            "label_smoothing: {smoothing: 5.}",
            "algorithms.label_smoothing.smoothing is 5.0; it must be from 0",
        ),
        ("label_smoothing: {smoothing: -1.}", "it must be from 0 to 1"),
        ("cutout: {length: 5.}", "it must be above 0 and at most 1"),
        ("ghost_batchnorm: {ghost_batch_size: 0}", "it must be at least 1"),
        ("colout: {batch: false}", "unknown key algorithms.colout.batch"),
        ("progressive_resizing: {mode: foo}", "algorithms.progressive_resizing: mode 'foo' is not supported"),
    ],
)
def test_what_is_wrong_for_images(pair, message):
    with pytest.raises(RecipeError) as error:
        loaded(pair, IMAGES)
    assert message in str(error.value)


def test_false_leaves_one_out():
    assert loaded("ema: false, sam: true").algorithms == {"sam": {}}


@pytest.mark.parametrize("name", FOR_IMAGES)
def test_a_language_model_refuses_those_for_images(name):
    with pytest.raises(RecipeError, match=f"algorithms.{name} is for images"):
        loaded(f"{name}: {{}}")
