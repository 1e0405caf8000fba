"""The text families: which there are, and that each runs, can be built again and is what its kind says."""

import random
from collections import Counter
from inspect import signature

import pytest
import torch
from families import CONFIGS
from text_families import FAMILIES, build, config, kind, skipped
from transformers.models.auto import modeling_auto as auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

LENGTH = 12
# Later tokens matter to them, by their mask of the keys of greatest weight, or if a batch has no padding.
LEAKS = {"doge", "aimv2_text_model"}


def outputs(model, ids, padding=0):
    mask = torch.ones_like(ids)
    mask[-1, LENGTH - padding :] = 0
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=mask)[0]


def tokens(rows):
    return torch.arange(rows * LENGTH).view(rows, LENGTH) * 7 % 80 + 5


def test_every_text_family_of_transformers_is_built_or_skipped_for_a_reason():
    mappings = (
        auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES,
        auto.MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES,
        auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    )
    expected = {name for mapping in mappings for name in mapping}
    expected |= {name for name in CONFIG_MAPPING_NAMES if name.endswith(("_text", "_text_model"))}
    assert not expected - set(FAMILIES) - set(skipped)
    assert not set(FAMILIES) & set(skipped)
    assert all(skipped.values())
    assert set(FAMILIES) | set(skipped) <= set(CONFIG_MAPPING_NAMES)


def test_there_are_many_of_each_kind():
    counts = Counter(map(kind, FAMILIES))
    assert counts.keys() == {"encoder", "decoder", "mixture", "hybrid", "recurrent"}
    assert min(counts.values()) >= 5
    assert counts.total() >= 250


def test_the_families_that_techniques_are_tested_on_are_among_them():
    assert set(CONFIGS) <= set(FAMILIES)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_runs_on_padded_rows_and_is_what_its_kind_says(name):
    """Later tokens matter to encoders and to no other kind; earlier ones matter to all."""
    ids = tokens(1).repeat(4, 1)
    ids[1, -1] = 4  # the last token is another
    ids[2, :-1] = 4  # all but the last are others
    model = build(name)
    found = outputs(model, ids, padding=3)
    assert found.isfinite().all()
    assert found.shape[:2] == (4, LENGTH)
    assert not model.training
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    last, earlier, _ = (found[1:] - found[0]).abs().amax(2)
    assert last[-1] > 1e-3
    assert earlier[-1] > 1e-3
    assert name in LEAKS or (last[:-1].amax() > 1e-3) == (kind(name) == "encoder")


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_is_the_same_when_built_again(name):
    assert_repeatable(name)


@pytest.mark.parametrize("name", ["bert", "gpt_oss", "jamba", "reformer"])
def test_building_leaves_the_generators_alone(name):
    assert_repeatable(name)


def assert_repeatable(name):
    """After other use of the generators, which building doesn't touch."""
    first = build(name).state_dict()
    states = torch.rand(1), torch.get_rng_state(), random.random(), random.getstate()
    second = build(name).state_dict()
    assert torch.equal(torch.get_rng_state(), states[1])
    assert random.getstate() == states[3]
    assert all(torch.equal(weight, second[key]) for key, weight in first.items())


def test_the_seed_decides():
    one, other = build("bert", seed=1), build("bert", seed=2)
    assert not torch.equal(outputs(one, tokens(1)), outputs(other, tokens(1)))
    assert signature(build).parameters["seed"].default == 0


@pytest.mark.parametrize(
    ("name", "field", "other"),
    [
        ("albert", "num_attention_heads", 2),
        ("cohere", "logit_scale", 1.0),
        ("deepseek_v3", "routed_scaling_factor", 1.0),
        ("deepseek_v32", "index_topk", 64),
        ("deepseek_v4", "swiglu_limit", 10.0),
        ("dory", "n_recurrent_loops", 1),
        ("gemma2", "attn_logit_softcapping", 50.0),
        ("gemma2", "final_logit_softcapping", 50.0),
        ("gemma3_text", "query_pre_attn_scalar", 256),
        ("granite", "attention_multiplier", 1.0),
        ("granite", "residual_multiplier", 1.0),
        ("llama4_text", "attention_chunk_size", 64),
        ("llama4_text", "attn_scale", 0.0),
        ("mistral", "sliding_window", 64),
        ("modernbert", "local_attention", 128),
        ("mt5", "relative_attention_max_distance", 128),
        ("olmo", "clip_qkv", None),
        ("qwen2", "use_sliding_window", False),
        ("recurrent_gemma", "attention_window_size", 64),
    ],
)
def test_what_is_special_to_a_family_has_an_effect(name, field, other):
    """With the same weights; a field that changes a shape would fail to load them."""
    model, without = build(name), build(name, **{field: other})
    assert getattr(config(name), field) != other
    without.load_state_dict(model.state_dict())
    assert (outputs(model, tokens(2)) - outputs(without, tokens(2))).abs().amax() > 1e-2


@pytest.mark.parametrize(
    "name", ["flint", "gpt_oss", "granite_swa", "mimo_v2_flash", "openai_privacy_filter"]
)
def test_sinks_take_their_part(name):
    model = build(name)
    stock = outputs(model, tokens(2))
    for key, weight in model.named_parameters():
        if key.endswith("sinks"):
            weight.data.fill_(-1e4)
    assert (outputs(model, tokens(2)) - stock).abs().amax() > 1e-1
