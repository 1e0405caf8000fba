"""yamls/modern_encoder.yaml and the overlays that change an ingredient of it."""

import pytest
from paths import ROOT
from recipe_files import stem
from transformers import BertConfig, BertForMaskedLM

from cadenza.recipe import build, load

RECIPE = str(ROOT / "yamls/modern_encoder.yaml")
OVERLAYS = sorted(str(path) for path in (ROOT / "yamls/encoder").glob("*.yaml"))
CHECKPOINT = "train.load_path=first.pt"
SMALL = [str(ROOT / "yamls/scale/cpu.yaml"), str(ROOT / "yamls/encoder/cpu.yaml")]


def settings(recipe):
    parts = (recipe.algorithms, recipe.optimizer, recipe.scheduler, recipe.data, recipe.train)
    return [str(part) for part in parts]


@pytest.mark.parametrize("overlay", OVERLAYS, ids=stem)
def test_each_overlay_changes_one_part(overlay):
    base, changed = load([RECIPE], []), load([RECIPE, overlay], [CHECKPOINT] * (stem(overlay) == "long"))
    assert build.algorithms(changed.algorithms)
    different = [a != b for a, b in zip(settings(base), settings(changed), strict=True)]
    assert sum(different) == {"long": 3}.get(stem(overlay), 1), different
    assert changed.name != base.name or stem(overlay) == "cpu"


@pytest.mark.parametrize("overlay", OVERLAYS, ids=stem)
def test_each_overlay_goes_with_the_small_ones(overlay):
    names = [RECIPE, *SMALL] if overlay in SMALL else [RECIPE, *SMALL, overlay]
    pairs = ["train.max_duration=900ba", CHECKPOINT][: 1 + (stem(overlay) == "long")]
    assert load(names, pairs).model.config["hidden_size"] == 128


def test_its_model_has_modernberts_number_of_parameters():
    """But for words and the head: 22 layers of 5.0M."""
    recipe = load([RECIPE], [])
    config = BertConfig(vocab_size=500, **{**recipe.model.config, "num_hidden_layers": 2})
    model = BertForMaskedLM(config)
    for algorithm in build.algorithms(recipe.algorithms):
        if hasattr(algorithm, "operate"):
            algorithm.operate(model)
    of_layers = sum(p.numel() for p in model.bert.encoder.parameters())
    # Four matrices of an attention, three of a feed-forward; of norms the first attention has none.
    assert of_layers == 2 * (4 * 768**2 + 3 * 768 * 1152) + 4 * 768
    assert model.bert.embeddings.token_type_embeddings.weight is None
    assert model.bert.embeddings.position_embeddings.weight is None
