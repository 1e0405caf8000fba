"""Vocabulary padding: same logits, same loss, same gradients, and more rows."""

import pytest
import torch
import torch.nn.functional as F
from families import CONFIGS, SIZES, VOCABULARY, batch, build
from transformers import Gemma2Config, Gemma2ForCausalLM

from cadenza.algorithms import VocabPadding, apply_vocab_padding
from cadenza.surgery import NoEffect, SurgeryError


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_loss_and_gradients_stay(family, dtype):
    stock, model = build(family).to(dtype), build(family).to(dtype)
    inputs = batch(family)
    expected = stock(**inputs)
    expected.loss.backward()
    apply_vocab_padding(model)
    out = model(**inputs)
    out.loss.backward()
    tolerance = 1e3 * torch.finfo(dtype).eps
    assert len(model.get_output_embeddings().weight) == 128
    assert out.logits.shape == expected.logits.shape
    assert (out.logits - expected.logits).abs().max() < tolerance
    assert (out.loss - expected.loss).abs() < tolerance
    theirs = dict(stock.named_parameters())
    for name, parameter in model.named_parameters():
        grad = parameter.grad[: theirs[name].shape[0]]
        assert (grad - theirs[name].grad).abs().max() < tolerance, name
        assert (parameter.grad[theirs[name].shape[0] :] == 0).all(), name


@pytest.mark.parametrize("family", ["bert", "llama", "gpt2", "distilbert"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_padded_rows_have_no_influence(family, dtype):
    """Whatever they hold; the products may run in another order, so logits are equal to rounding."""
    stock, model = build(family).to(dtype), build(family).to(dtype)
    apply_vocab_padding(model)
    with torch.no_grad():
        model.get_output_embeddings().weight[VOCABULARY:] = 100.0
        logits, expected = (m(input_ids=batch(family)["input_ids"]).logits for m in (model, stock))
    assert logits.shape == expected.shape
    assert (logits - expected).abs().max() <= 4 * torch.finfo(dtype).eps * expected.abs().max()


def test_label_smoothing_gives_the_loss_of_before():
    """It counts every word, so any logit of a padded word would change it."""
    inputs, losses = batch("bert"), []
    for model in (build("bert").double(), build("bert").double()):
        if losses:
            apply_vocab_padding(model)
        logits, labels = model(input_ids=inputs["input_ids"]).logits.flatten(0, 1), inputs["labels"].flatten()
        losses.append(F.cross_entropy(logits, labels, label_smoothing=0.1).item())
    assert losses[1] == pytest.approx(losses[0], rel=1e-12)


def test_a_cap_of_the_logits_lets_no_padding_in():
    sizes = {"num_key_value_heads": 2, "head_dim": 8, "final_logit_softcapping": 30.0}
    model = Gemma2ForCausalLM(Gemma2Config(**{**SIZES, **sizes})).eval()
    ids = batch("llama")["input_ids"]
    expected = model(input_ids=ids, labels=ids)
    apply_vocab_padding(model)
    found = model(input_ids=ids, labels=ids)
    assert torch.allclose(found.logits, expected.logits, atol=1e-6)
    assert found.loss.item() == pytest.approx(expected.loss.item(), rel=1e-6)


@pytest.mark.parametrize("multiple", [1, 7, 8, 64, 90])
def test_multiples(multiple):
    model = build("bert")
    rows = -(-VOCABULARY // multiple) * multiple
    if rows == VOCABULARY:
        with pytest.raises(NoEffect, match=f"90 words are already a multiple of {multiple}"):
            apply_vocab_padding(model, multiple)
        return
    apply_vocab_padding(model, multiple)
    assert model.get_input_embeddings().weight.shape[0] == rows
    assert model.cls.predictions.bias is model.cls.predictions.decoder.bias
    assert model.cls.predictions.bias.shape == (rows,)


def test_a_bad_multiple_is_said():
    with pytest.raises(SurgeryError, match="multiple is 0; it must be at least 1"):
        apply_vocab_padding(build("bert"), 0)


def test_new_rows_are_drawn_by_the_models_init():
    model = build("bert", hidden_size=512, vocab_size=65, initializer_range=0.05)
    apply_vocab_padding(model)
    new = model.get_input_embeddings().weight[65:]
    assert new.std().item() == pytest.approx(0.05, rel=0.05)


def test_an_encoder_without_head():
    model = build("bert").bert
    apply_vocab_padding(model)
    assert model.embeddings.word_embeddings.num_embeddings == 128


def test_sixty_four_is_the_default():
    model = build("bert", vocab_size=129)
    report = apply_vocab_padding(model)
    assert report.surgery == repr(VocabPadding()) == "VocabPadding(multiple=64)"
    assert [(c.before, c.after) for c in report.changes] == [
        ("BertForMaskedLM of 129 words", "BertForMaskedLM of 192 words")
    ]
    model = build("bert")
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    report = apply_vocab_padding(model, 32, optimizers=optimizer)
    assert report.surgery == "VocabPadding(multiple=32)"
    held = {id(p) for p in optimizer.param_groups[0]["params"]}
    assert held == {id(p) for p in model.parameters()}


@pytest.mark.parametrize("tied", [True, False])
def test_layers_count_padded_words_and_the_config_real_ones(tied):
    model = build("llama", tie_word_embeddings=tied)
    apply_vocab_padding(model, 32)
    words, head = model.get_input_embeddings(), model.get_output_embeddings()
    assert (words.num_embeddings, head.out_features, len(words.weight), len(head.weight)) == (96, 96, 96, 96)
    assert (model.config.vocab_size, model.vocab_size, model.model.vocab_size) == (VOCABULARY,) * 3
    assert (head.weight is words.weight) is tied


def test_the_bias_gets_zeros():
    model = build("bert")
    stock = model.cls.predictions.bias.detach().clone()
    apply_vocab_padding(model, 32)
    bias = model.cls.predictions.bias
    assert torch.equal(bias[:VOCABULARY], stock)
    assert (bias[VOCABULARY:] == 0).all()


def test_a_head_without_bias():
    model = build("llama", tie_word_embeddings=False)
    head = model.get_output_embeddings()
    x = torch.randn(3, 32)
    expected = head(x)
    apply_vocab_padding(model, 32)
    assert head.bias is None
    assert torch.allclose(head(x), expected, atol=1e-6)


def test_frozen_words_stay_frozen():
    model = build("llama", tie_word_embeddings=False)
    model.get_input_embeddings().weight.requires_grad_(False)
    apply_vocab_padding(model, 32)
    assert not model.get_input_embeddings().weight.requires_grad
    assert model.get_output_embeddings().weight.requires_grad


def test_the_config_of_an_earlier_version_has_the_real_words_beside():
    fields = {"vocab_size": 96, "unpadded_vocab_size": 90, "hidden_size": 32}
    assert VocabPadding.stock_config(fields) == {"vocab_size": 90, "hidden_size": 32}
    assert VocabPadding.stock_config({"vocab_size": 90}) == {"vocab_size": 90}


def test_only_the_outermost_model_is_padded():
    model = torch.nn.ModuleDict({"bert": build("bert"), "words": torch.nn.Embedding(90, 4)})
    report = apply_vocab_padding(model)
    assert [change.path for change in report.changes] == ["bert"]
    assert model["words"].num_embeddings == 90
    with pytest.raises(NoEffect, match="found nothing to change in Embedding"):
        apply_vocab_padding(torch.nn.Embedding(90, 4))
