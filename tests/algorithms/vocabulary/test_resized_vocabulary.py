"""A padded vocabulary that is resized, undone, saved, or that a model uses in another way."""

import pytest
import torch
from families import CONFIGS, VOCABULARY, batch, build
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    DebertaV2Config,
    DebertaV2ForMaskedLM,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    MobileBertConfig,
    MobileBertForMaskedLM,
    ViTConfig,
    ViTModel,
)

from cadenza.algorithms import apply_vocab_padding
from cadenza.models import load
from cadenza.surgery import NoEffect, SurgeryError, history

SMALL = {"vocab_size": 90, "hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 4}
SMALL |= {"num_hidden_layers": 1}


def resized(family, words, *, tied=True, padded):
    """A model after `resize_token_embeddings`; the new rows are all 0.5, in the bias too."""
    model = build(family, tie_word_embeddings=tied)
    if padded:
        apply_vocab_padding(model)
    model.resize_token_embeddings(words, mean_resizing=False)
    head = model.get_output_embeddings()
    with torch.no_grad():
        for table in {model.get_input_embeddings().weight, head.weight, head.bias} - {None}:
            table[min(words, VOCABULARY) : words] = 0.5
    return model


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("words", [40, 95, 128, 130, 192])
def test_new_words_are_as_in_a_stock_model(family, words):
    stock, model = (resized(family, words, padded=padded) for padded in (False, True))
    ids = batch(family)["input_ids"] % 40
    ids[0, 0] = words - 1
    found, expected = (m(input_ids=ids, labels=ids) for m in (model, stock))
    assert found.logits.shape[-1] == words == model.config.vocab_size
    assert len(model.get_input_embeddings().weight) == -(-words // 64) * 64
    assert torch.allclose(found.logits, expected.logits, atol=1e-5)
    assert found.loss.item() == pytest.approx(expected.loss.item(), rel=1e-5)


@pytest.mark.parametrize(("family", "tied"), [("bert", True), ("llama", True), ("llama", False)])
@pytest.mark.parametrize("words", [95, 128, 130])
def test_a_resized_model_is_saved_and_loaded(words, family, tied, tmp_path):
    model = resized(family, words, tied=tied, padded=True).eval()
    model.save_pretrained(tmp_path)
    ids = batch(family)["input_ids"]
    assert torch.equal(load(tmp_path)(ids).logits, model(ids).logits)


def test_a_resize_to_a_multiple_leaves_a_stock_model():
    model = build("bert")
    report = apply_vocab_padding(model)
    model.resize_token_embeddings(128)
    assert type(model.get_output_embeddings()) is torch.nn.Linear
    assert history(model) == []
    with pytest.raises(NoEffect, match="128 words are already a multiple of 64"):
        apply_vocab_padding(model)
    report.undo()
    assert len(model.get_input_embeddings().weight) == 128


def test_an_undo_after_a_resize_keeps_the_new_words():
    model = build("llama", tie_word_embeddings=False)
    report = apply_vocab_padding(model)
    model.resize_token_embeddings(95)
    ids = batch("llama")["input_ids"]
    expected = model(ids).logits
    report.undo()
    assert torch.allclose(model(ids).logits, expected, atol=1e-6)
    assert len(model.get_output_embeddings().weight) == model.get_output_embeddings().out_features == 95


def test_a_resize_of_the_base_model_alone_is_said():
    """The output layer belongs to the outermost model."""
    model = build("llama", tie_word_embeddings=True)
    apply_vocab_padding(model)
    model.model.resize_token_embeddings(95)
    with pytest.raises(SurgeryError, match="95 rows in place of 128; resize the outermost model"):
        model(batch("llama")["input_ids"])


def trained(padded, undone, steps=6):
    """The loss of each step; the vocabulary is padded before the third one, and `undone` before the fifth."""
    model = build("bert", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0).double()
    optimizer, losses, inputs = torch.optim.AdamW(model.parameters(), lr=1e-2), [], batch("bert")
    for step in range(steps):
        if padded and step == 2:
            report = apply_vocab_padding(model, optimizers=optimizer)
        if undone and step == 4:
            report.undo()
        optimizer.zero_grad()
        loss = model(**inputs).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("undone", [True, False])
def test_training_goes_on_with_the_weights_and_moments_of_before(undone):
    assert trained(True, undone) == pytest.approx(trained(False, False), rel=1e-9)


def test_a_gradient_that_waits_for_its_step_is_kept():
    model = build("bert")
    model(**batch("bert")).loss.backward()
    weight = model.get_input_embeddings().weight
    expected = weight.grad.clone()
    report = apply_vocab_padding(model)
    assert torch.equal(weight.grad[:VOCABULARY], expected)
    assert not weight.grad[VOCABULARY:].any()
    report.undo()
    assert torch.equal(weight.grad, expected)


@pytest.mark.parametrize(
    ("config", "build_model"),
    [
        (MobileBertConfig(**SMALL, embedding_size=16), MobileBertForMaskedLM),
        (DebertaV2Config(**SMALL, legacy=False), DebertaV2ForMaskedLM),
    ],
)
def test_logits_that_another_layer_computes_are_refused(config, build_model):
    model = build_model(config)
    with pytest.raises(SurgeryError, match="needs logits that the output layer alone computes"):
        apply_vocab_padding(model)
    assert len(model.get_input_embeddings().weight) == 90


def test_a_bias_of_the_model_fits_the_real_words():
    sizes = {
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
    }
    sizes |= {"encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "d_model": 32, "vocab_size": 90}
    model = BartForConditionalGeneration(BartConfig(**sizes)).eval()
    ids = batch("bert")["input_ids"]
    expected = model(input_ids=ids, labels=ids)
    apply_vocab_padding(model)
    found = model(input_ids=ids, labels=ids)
    assert torch.allclose(found.logits, expected.logits, atol=1e-6)
    assert found.loss.item() == pytest.approx(expected.loss.item(), rel=1e-6)


def test_a_composite_config_keeps_the_words_of_its_text():
    text = {**SMALL, "num_key_value_heads": 2, "head_dim": 8}
    vision = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision |= {"image_size": 16, "patch_size": 4}
    config = Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4, image_token_index=89)
    model = Gemma3ForConditionalGeneration(config).eval()
    ids = batch("llama", padding=None)["input_ids"] % 80
    inputs = {"input_ids": ids, "labels": ids, "token_type_ids": torch.zeros_like(ids)}
    expected = model(**inputs)
    apply_vocab_padding(model)
    assert model.config.text_config.vocab_size == 90
    assert model(**inputs).loss.item() == pytest.approx(expected.loss.item(), rel=1e-6)
    model.resize_token_embeddings(95)
    assert model.config.text_config.vocab_size == 95 == model(**inputs).logits.shape[-1]
    assert len(model.get_input_embeddings().weight) == 128


def test_a_model_without_words_has_nothing_to_pad():
    with pytest.raises(NoEffect):
        apply_vocab_padding(ViTModel(ViTConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2)))
