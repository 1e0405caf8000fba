"""The table of keys: the page in docs is its output, and every key declares what it means and what fits."""

from dataclasses import fields
from typing import get_args, get_type_hints

import pytest
from paths import ROOT

from cadenza.algorithms import REGISTRY
from cadenza.options import declared
from cadenza.recipe import build, keys
from cadenza.recipe.methods import COMPOSERS
from cadenza.recipe.optimizers.choice import OPTIMIZERS
from cadenza.recipe.schema import OBJECTIVES
from cadenza.recipe.schema.training import SCHEDULES

CLASSES = [cls for _, _, cls in keys.SECTIONS] + list(REGISTRY.values())
OPTIONS = [
    pytest.param(field, get_type_hints(cls)[field.name], id=f"{cls.__name__}.{field.name}")
    for cls in CLASSES
    for field in fields(cls)
    if not hasattr(get_type_hints(cls)[field.name], "__dataclass_fields__")
]


def test_the_page_is_the_output():
    assert (ROOT / "docs/recipe_keys.md").read_text() == keys.page(), (
        "python -m cadenza.recipe.keys prints it"
    )


def test_each_section_and_each_technique_has_one_heading():
    heads = [line[3:] for line in keys.page().splitlines() if line.startswith("## ")]
    played = [f"algorithms.{name}" for name in (*REGISTRY, *COMPOSERS)]
    assert heads == [name for name, _, _ in keys.SECTIONS] + played


def test_algorithms_of_composer_have_their_options_and_ranges():
    row = "| `algorithms.gradient_clipping.clipping_threshold` | a number | required | above 0 |  |"
    assert row in keys.page().splitlines()


@pytest.mark.parametrize(("field", "hint"), OPTIONS)
def test_every_key_says_what_it_means_and_every_number_has_a_range(field, hint):
    option = declared(field)
    assert option.meaning.endswith(".")
    assert "|" not in option.meaning
    kinds = set(get_args(hint)) or {hint}
    if kinds & {int, float}:
        assert option.valid is not None


def test_names_are_those_that_are_built():
    (name,) = (field for field in fields(keys.Optimizer) if field.name == "name")
    assert set(declared(name).valid.words) == set(OPTIMIZERS)
    assert set(SCHEDULES) == set(build.SCHEDULERS)
    (objective,) = (field for field in fields(keys.Model) if field.name == "objective")
    assert declared(objective).valid.words == OBJECTIVES


def test_depths_and_stems_are_those_of_the_model():
    from cadenza.models.resnet import DEPTHS, STEMS

    by_name = {field.name: declared(field).valid for field in fields(keys.ImageModel)}
    assert by_name["model_type"].words == tuple(DEPTHS)
    assert by_name["stem"].words == STEMS
