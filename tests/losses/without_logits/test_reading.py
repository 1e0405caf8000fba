"""The loss of each family is read by a short call; loss and gradients without logits are the stock ones."""

import copy

import pytest
import torch
from families import CONFIGS, SIZES, batch, build
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from cadenza.algorithms import apply_chunked_loss
from cadenza.losses.row_losses import LogitMap
from cadenza.losses.without_logits.reading import Reading
from cadenza.surgery import NoEffect, SurgeryError

GROUPED = {"num_key_value_heads": 2}
MORE = {
    "cohere": ({**GROUPED, "logit_scale": 0.25}, LogitMap(0.25)),
    "falcon_h1": (
        {
            **GROUPED,
            **{"head_dim": 8, "mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 8},
            "lm_head_multiplier": 0.3,
        },
        LogitMap(0.3),
    ),
    "gemma2": ({**GROUPED, "head_dim": 8, "final_logit_softcapping": 1.5}, LogitMap(1.0, 1.5)),
    "gemma3_text": ({**GROUPED, "head_dim": 8, "final_logit_softcapping": 2.0}, LogitMap(1.0, 2.0)),
    "granite": ({**GROUPED, "logits_scaling": 8.0}, LogitMap(0.125)),
    "gpt_neox": ({}, LogitMap()),
    "mixtral": ({**GROUPED, "num_local_experts": 4, "output_router_logits": True}, LogitMap()),
    "olmo2": (GROUPED, LogitMap()),
    "opt": ({"ffn_dim": 48, "word_embed_proj_dim": 32}, LogitMap()),
    "phi3": (GROUPED, LogitMap()),
}


def model_of(family):
    """A small model in training mode without dropout, so that gradients can be compared."""
    if family in CONFIGS:
        model = build(family)
    else:
        config = AutoConfig.for_model(family, **{**SIZES, **MORE[family][0]})
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model.eval()


def step(model, inputs, **options):
    """The loss, and all gradients in one vector."""
    model.zero_grad()
    loss = model(**inputs, **options).loss
    loss.backward()
    return loss.detach(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def assert_same(ours, theirs):
    assert abs(ours[0] - theirs[0]) <= 1e-6 * abs(theirs[0])
    assert (ours[1] - theirs[1]).norm() <= 1e-5 * theirs[1].norm()


@pytest.mark.parametrize("family", [*CONFIGS, *MORE])
def test_loss_and_gradients_of_each_family(family):
    stock = model_of(family)
    ours = copy.deepcopy(stock)
    apply_chunked_loss(ours, rows=5)
    assert ours.loss_reading.map == (MORE[family][1] if family in MORE else LogitMap())
    inputs = batch(family)
    assert_same(step(ours, inputs), step(stock, inputs))
    assert ours(**inputs).logits is None
    del inputs["labels"]
    assert torch.equal(ours(**inputs).logits, stock(**inputs).logits)


@pytest.mark.parametrize("family", ["bert", "llama"])
@pytest.mark.parametrize("which", ["one", "all", "one row of the batch"])
def test_few_labels_and_all(family, which):
    stock = model_of(family)
    ours = copy.deepcopy(stock)
    apply_chunked_loss(ours)
    inputs = batch(family, padding=None)
    labels = inputs["input_ids"].clone()
    if which != "all":
        labels[1:] = -100
    if which == "one":
        labels[0, 1:-1] = -100
    assert_same(step(ours, {**inputs, "labels": labels}), step(stock, {**inputs, "labels": labels}))


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_no_label_is_nan_as_in_stock_code(family):
    inputs = batch(family)
    inputs["labels"] = torch.full_like(inputs["labels"], -100)
    model = model_of(family)
    assert model(**inputs).loss.isnan()
    apply_chunked_loss(model)
    loss, gradient = step(model, inputs)
    assert loss.isnan()
    assert torch.equal(gradient, torch.zeros_like(gradient))


@pytest.mark.parametrize("family", ["bert", "cohere", "llama"])
def test_a_model_on_meta_is_read(family):
    expected = model_of(family)
    apply_chunked_loss(expected)
    with torch.device("meta"):
        model = model_of(family) if family in MORE else type(expected)(expected.config)
    apply_chunked_loss(model).undo()
    with torch.device("meta"):  # as while transformers loads a folder
        apply_chunked_loss(model)
    assert model.loss_reading == expected.loss_reading


def test_targets_are_shifted_for_a_causal_model():
    labels = torch.tensor([[1, 2, 3], [4, -100, 6]])
    assert Reading(LogitMap(), shifts=False).targets(labels) is labels
    assert Reading(LogitMap(), shifts=True).targets(labels).tolist() == [[2, 3, -100], [-100, 6, -100]]


def test_logits_that_the_config_does_not_explain_are_refused(monkeypatch):
    model = model_of("cohere")
    model.logit_scale = 0.7  # the config says 0.25
    before = type(model.lm_head), type(model)
    with pytest.raises(
        SurgeryError, match=r"CohereForCausalLM: its loss isn't the cross-entropy of its output"
    ):
        apply_chunked_loss(model)
    assert before == (type(model.lm_head), type(model))


def test_a_model_that_multiplies_by_its_embeddings_itself_is_refused():
    model = model_of("llama")
    model.lm_head.forward = lambda hidden: hidden @ model.lm_head.weight.t()
    with pytest.raises(SurgeryError, match="calls its output layer 0 times"):
        apply_chunked_loss(model)


def test_a_loss_of_ones_own_is_refused():
    model = model_of("llama")
    model.loss_function = lambda logits, labels, vocab_size, **kwargs: logits.sum()
    with pytest.raises(SurgeryError, match="loss"):
        apply_chunked_loss(model)


def test_an_output_layer_of_another_kind_is_refused():
    model = model_of("llama")
    model.lm_head = nn.Sequential(model.lm_head)
    with pytest.raises(
        SurgeryError, match=r"output layer is Sequential; chunked_loss needs a plain nn\.Linear"
    ):
        apply_chunked_loss(model)


def test_a_parametrized_output_layer_is_refused():
    model = model_of("llama")
    nn.utils.parametrizations.weight_norm(model.lm_head)
    with pytest.raises(SurgeryError, match=r"plain nn\.Linear"):
        apply_chunked_loss(model)


def test_a_model_without_an_output_layer():
    with pytest.raises(NoEffect):
        apply_chunked_loss(model_of("bert").bert)
