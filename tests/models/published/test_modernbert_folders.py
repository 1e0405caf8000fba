"""ModernBERT's published layout: read to stock transformers' logits, written back bit for bit."""

import pytest
import torch
from families import batch, build
from modernbert_layout import HIDDEN, LAYERS, OLD, WORDS, drawn, from_stock_bert
from safetensors.torch import load_file
from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification, BertForMaskedLM

from cadenza.algorithms import (
    apply_glu,
    apply_no_bias,
    apply_post_training_quantization,
    apply_pre_norm,
    apply_rotary,
    apply_sliding_window,
    apply_sparse_prediction,
    apply_unpadding,
    apply_vocab_padding,
)
from cadenza.models import ModelError, load, load_modernbert, save, save_modernbert
from cadenza.surgery.ledger import history


def stock(folder):
    model, info = AutoModelForMaskedLM.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    return model.eval()


def assert_same_logits(folder, model, tolerance=1e-4):
    """At real tokens, to float32's angles in ModernBERT; exact equality is test_modernbert_equality's."""
    inputs = batch("bert", length=41, padding="left")
    del inputs["labels"]
    with torch.no_grad():
        expected, found = stock(folder)(**inputs).logits, model(**inputs).logits
    real = inputs["attention_mask"].bool()
    assert (found - expected)[real].abs().max() < tolerance * expected[real].abs().max()


def assert_written_back(folder, tmp_path):
    save_modernbert(load_modernbert(folder), tmp_path / "again")
    written, tensors = (load_file(path / "model.safetensors") for path in (tmp_path / "again", folder))
    assert written.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert written[name].dtype == tensor.dtype
        assert torch.equal(written[name], tensor), name


CHANGED = [
    {},
    {"global_attn_every_n_layers": 2, "local_attention": 6, "global_rope_theta": 77.0},
    {"local_rope_theta": 160000.0, "max_position_embeddings": 7999},  # mmBERT's thetas
    {"hidden_activation": "silu", "classifier_activation": "relu"},
    {"hidden_activation": "relu", "norm_eps": 1e-2, "initializer_range": 0.1},
    {"layer_types": ["full_attention"] * LAYERS, "local_attention": 10},
    {"layer_types": ["sliding_attention"] * LAYERS},
    {"layer_types": ["full_attention"] + ["sliding_attention"] * (LAYERS - 1)},
    dict.fromkeys(("attention_dropout", "embedding_dropout", "mlp_dropout"), 0.2),
    {"initializer_cutoff_factor": 3.0, "classifier_pooling": "cls", "cls_token_id": 5},
    {"bos_token_id": None, "eos_token_id": None, "sep_token_id": None, "pad_token_id": 0},
]


@pytest.mark.parametrize("fields", CHANGED, ids=lambda fields: next(iter(fields), "published"))
def test_both_ways(publish, tmp_path, fields):
    folder = publish(**fields)
    assert_same_logits(folder, load_modernbert(folder))
    assert_written_back(folder, tmp_path)
    before, after = (stock(path).config.to_dict() for path in (folder, tmp_path / "again"))
    own = {**OLD, "layer_types": 0, "rope_parameters": 0}.keys()
    read = {
        key for key in own if key in AutoModelForMaskedLM.from_pretrained(tmp_path / "again").config.to_dict()
    }
    assert {"classifier_pooling", "layer_types", "rope_parameters", "cls_token_id", "norm_eps"} <= read
    assert {key: before[key] for key in read} == {key: after[key] for key in read}


def test_a_decoder_without_bias(publish, tmp_path):
    folder = publish(drawn(bias=False), decoder_bias=False)
    assert_same_logits(folder, load_modernbert(folder))
    assert_written_back(folder, tmp_path)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_the_dtype_stays(publish, tmp_path, dtype):
    folder = publish(drawn(dtype=dtype), torch_dtype=str(dtype).partition(".")[2])
    assert {p.dtype for p in load_modernbert(folder).parameters()} == {dtype}
    assert_written_back(folder, tmp_path)
    assert stock(tmp_path / "again").dtype == dtype


def test_the_tied_copy_and_pickles(publish):
    expected = load_modernbert(publish()).state_dict()
    tensors = drawn()
    copied = {**tensors, "decoder.weight": tensors["model.embeddings.tok_embeddings.weight"].clone()}
    folder = publish(copied)
    found = load_modernbert(folder).state_dict()
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    for state in (found, load_modernbert(folder, trusted=True).state_dict()):
        assert all(torch.equal(state[name], tensor) for name, tensor in expected.items())
    with pytest.raises(ModelError, match=r"decoder\.weight isn't tied"):
        load_modernbert(publish({**tensors, "decoder.weight": torch.ones(WORDS, HIDDEN)}))


def test_a_model_of_ones_own(tmp_path):
    """Pretrained here from stock BERT, with a padded vocabulary and techniques that keep outputs."""
    model = from_stock_bert()
    apply_sliding_window(model, 3, global_every=2)
    for apply in (apply_vocab_padding, apply_unpadding, apply_sparse_prediction):
        apply(model)
    assert save_modernbert(model, tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert_same_logits(tmp_path / "a" / "b", model)
    config = stock(tmp_path / "a" / "b").config
    assert (config.vocab_size, config.attention_dropout, config.cls_token_id) == (90, 0.1, None)
    assert not (tmp_path / "a" / "b" / "cadenza_remote.py").exists()
    sized = build("bert", type_vocab_size=1)
    for apply in (lambda m: apply_glu(m, "swiglu", 24), lambda m: apply_no_bias(m, keep_output=False)):
        apply(sized)
    apply_rotary(sized, theta=500.0)
    apply_pre_norm(sized)
    save_modernbert(sized, tmp_path / "sized")
    assert_same_logits(tmp_path / "sized", sized)
    assert stock(tmp_path / "sized").config.intermediate_size == 24


def test_it_goes_on_as_any_model(published, tmp_path):
    """Saved and loaded, with another head, quantized, trained, and written in the layout again."""
    model = load_modernbert(published)
    assert not model.training
    assert type(model).__mro__[1:].count(BertForMaskedLM) == 1
    assert {entry.name for entry in history(model)} == {
        *("GLU", "NoBias", "PreNorm", "Rotary", "SlidingWindow"),
    }
    inputs = batch("bert")
    expected = model(**inputs).logits
    save(model, tmp_path / "folder")
    again = load(tmp_path / "folder")
    assert torch.equal(again(**inputs).logits, expected)
    save_modernbert(again, tmp_path / "again")
    assert stock(tmp_path / "again").config.classifier_pooling == "mean"
    classifier = load(tmp_path / "folder", AutoModelForSequenceClassification, num_labels=3)
    classifier(**{**inputs, "labels": torch.tensor([0, 1, 2])}).loss.backward()
    for (name, ours), theirs in zip(
        classifier.bert.encoder.named_parameters(), model.bert.encoder.parameters(), strict=True
    ):
        assert torch.equal(ours, theirs), name
        assert ours.grad.abs().max() > 0, name
    again.train()(**inputs).loss.backward()
    apply_post_training_quantization(again, format="int8")
    assert (again.eval()(**inputs).logits - expected).abs().max() < 0.2 * expected.abs().max()
    with pytest.raises(ModelError, match=r"PostTrainingQuantization.* is not a ModernBERT"):
        save_modernbert(again, tmp_path / "quantized")
    assert not (tmp_path / "quantized").exists()
