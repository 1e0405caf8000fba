"""Overlays of bits: what they change in each recipe, and nothing else."""

from pathlib import Path

import pytest
import yaml
from paths import ROOT
from recipe_files import RECIPES, stem
from trainers import state_at

from cadenza.recipe import RecipeError, build, load

QUANTIZED = [str(ROOT / f"yamls/quantization/{bits}.yaml") for bits in ("w8a8", "w4a4")]
TRANSFORMER = str(ROOT / "yamls/quantization/transformer.yaml")
COOLDOWN = str(ROOT / "yamls/quantization/cooldown.yaml")


@pytest.mark.parametrize("recipe", RECIPES, ids=stem)
@pytest.mark.parametrize("overlay", QUANTIZED, ids=stem)
def test_every_recipe_takes_the_bits_of_an_overlay_and_nothing_else(recipe, overlay):
    plain, quantized, later = (load([recipe, *more], []) for more in ([], [overlay], [overlay, TRANSFORMER]))
    model_type = yaml.safe_load(Path(recipe).read_text())["model"].get("model_type", "model")
    assert quantized.name == later.name == f"{model_type}-{stem(overlay)}"
    settings, of_transformer = (
        each.algorithms.pop("quantization_aware_training") for each in (quantized, later)
    )
    bits = int(stem(overlay)[1])
    assert (settings["weight_bits"], settings["activation_bits"], settings["edge_bits"]) == (bits, bits, 8)
    assert settings["calibrate_until"] == "0.048dur"
    assert of_transformer == {**settings, "calibrate_until": "0.5dur"}
    plain.name = quantized.name
    assert plain == quantized == later


def test_the_overlay_of_transformers_needs_bits_before_it():
    missing = r"transformer\.yaml: algorithms\.quantization_aware_training\.weight_bits is '\?\?\?'"
    with pytest.raises(RecipeError, match=missing):
        load([str(ROOT / "yamls/mosaicbert.yaml"), TRANSFORMER], [])


@pytest.mark.parametrize("recipe", RECIPES, ids=stem)
@pytest.mark.parametrize("overlay", QUANTIZED, ids=stem)
def test_the_overlay_of_the_cooldown_starts_where_the_rate_decays(recipe, overlay):
    # The modern encoder's warm-up is longer than the 2,500 batches here.
    short = ["scheduler.t_warmup=125ba"] if stem(recipe) == "modern_encoder" else []
    before, after = (load([recipe, overlay, *more], short) for more in ([], [COOLDOWN]))
    settings, of_cooldown = (each.algorithms.pop("quantization_aware_training") for each in (before, after))
    assert of_cooldown == {**settings, "start": "0.8dur", "calibrate_until": "0.82dur"}
    build.algorithms({"quantization_aware_training": of_cooldown})
    schedule = build.scheduler(after.scheduler)
    warm, start, half, end = (schedule(state_at(batch)) for batch in (1250, 2000, 2250, 2500))
    assert (warm, start, half, end) == pytest.approx((1, 1, 0.5, 0))
    before.scheduler = after.scheduler
    assert before == after


def test_the_overlay_of_the_cooldown_needs_bits_before_it():
    with pytest.raises(RecipeError, match=r"cooldown\.yaml: .*weight_bits is '\?\?\?'"):
        load([str(ROOT / "yamls/resnet50_bf16.yaml"), COOLDOWN], [])
