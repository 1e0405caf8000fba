"""MosaicBERT's published layout: read to the plain reference's logits, written back bit for bit."""

import json

import mosaicbert_reference as reference
import pytest
import torch
from families import VOCABULARY, batch, build
from safetensors.torch import save_file

from cadenza.algorithms import (
    apply_alibi,
    apply_glu,
    apply_sparse_prediction,
    apply_unpadding,
    apply_vocab_padding,
)
from cadenza.models import ModelError, load, load_mosaicbert, save, save_mosaicbert

WORDS, HIDDEN, INNER, HEADS, LAYERS = 96, 48, 64, 12, 12
CONFIG = {
    "alibi_starting_size": 512,
    "architectures": ["BertForMaskedLM"],
    "attention_probs_dropout_prob": 0.0,
    "auto_map": {"AutoModelForMaskedLM": "bert_layers.BertForMaskedLM"},
    "hidden_size": HIDDEN,
    "intermediate_size": INNER,
    "layer_norm_eps": 1e-12,
    "model_type": "bert",
    "num_attention_heads": HEADS,
    "num_hidden_layers": LAYERS,
    "torch_dtype": "float32",
    "vocab_size": WORDS - 6,  # the published config counts the words before padding
}


def layout():
    """Names and shapes of the published file."""
    shapes = {
        "bert.embeddings.word_embeddings.weight": (WORDS, HIDDEN),
        "bert.embeddings.token_type_embeddings.weight": (2, HIDDEN),
        "cls.predictions.transform.dense.weight": (HIDDEN, HIDDEN),
        "cls.predictions.transform.dense.bias": (HIDDEN,),
        "cls.predictions.decoder.bias": (WORDS,),
    }
    norms = ["bert.embeddings.LayerNorm", "cls.predictions.transform.LayerNorm"]
    for number in range(LAYERS):
        layer = f"bert.encoder.layer.{number}"
        shapes |= {
            f"{layer}.attention.self.Wqkv.weight": (3 * HIDDEN, HIDDEN),
            f"{layer}.attention.self.Wqkv.bias": (3 * HIDDEN,),
            f"{layer}.attention.output.dense.weight": (HIDDEN, HIDDEN),
            f"{layer}.attention.output.dense.bias": (HIDDEN,),
            f"{layer}.mlp.gated_layers.weight": (2 * INNER, HIDDEN),
            f"{layer}.mlp.wo.weight": (HIDDEN, INNER),
            f"{layer}.mlp.wo.bias": (HIDDEN,),
        }
        norms += [f"{layer}.attention.output.LayerNorm", f"{layer}.mlp.layernorm"]
    return shapes | {f"{norm}.{kind}": (HIDDEN,) for norm in norms for kind in ("weight", "bias")}


@pytest.fixture
def tensors():
    generator = torch.Generator().manual_seed(0)
    made = {name: 0.2 * torch.randn(shape, generator=generator) for name, shape in layout().items()}
    tied = made["bert.embeddings.word_embeddings.weight"]
    return {**made, "cls.predictions.decoder.weight": tied}


@pytest.fixture
def published(tmp_path, tensors):
    folder = tmp_path / "published"
    folder.mkdir()
    torch.save(tensors, folder / "pytorch_model.bin")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder


def reference_logits(tensors, inputs):
    """The reference on the published tensors; it wants separate projections, and its own names."""
    w = {name: tensor.double() for name, tensor in tensors.items()}
    for number in range(LAYERS):
        layer = f"bert.encoder.layer.{number}"
        for row, name in enumerate(("query", "key", "value")):
            rows = slice(row * HIDDEN, (row + 1) * HIDDEN)
            for kind in ("weight", "bias"):
                w[f"{layer}.attention.self.{name}.{kind}"] = w[f"{layer}.attention.self.Wqkv.{kind}"][rows]
        w[f"{layer}.intermediate.dense.weight"] = w[f"{layer}.mlp.gated_layers.weight"]
        for kind in ("weight", "bias"):
            w[f"{layer}.output.dense.{kind}"] = w[f"{layer}.mlp.wo.{kind}"]
            w[f"{layer}.output.LayerNorm.{kind}"] = w[f"{layer}.mlp.layernorm.{kind}"]
    w["cls.predictions.bias"] = w["cls.predictions.decoder.bias"]
    data = inputs["input_ids"], inputs["attention_mask"], inputs["labels"]
    return reference.mosaicbert(w, *data, heads=HEADS, layers=LAYERS, words=WORDS)[0]


@pytest.mark.parametrize("padding", [None, "right", "left"])
def test_equals_the_reference(published, tensors, padding):
    model = load_mosaicbert(published, trusted=True)
    inputs = batch("bert", length=41, padding=padding)
    with torch.no_grad():
        logits = model(**inputs).logits
    expected = reference_logits(tensors, inputs)
    real = inputs["attention_mask"].bool()
    assert (logits - expected)[real].abs().max() < 1e-5 * expected[real].abs().max()


def test_the_tensors_are_written_back_bit_for_bit(published, tensors, tmp_path):
    save_mosaicbert(load_mosaicbert(published, trusted=True), tmp_path / "again")
    written = torch.load(tmp_path / "again/pytorch_model.bin", weights_only=True)
    assert len(tensors) == 142
    assert written.keys() == tensors.keys()
    assert all(torch.equal(written[name], tensors[name]) for name in tensors)
    tied = "bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight"
    assert len({written[name].data_ptr() for name in tied}) == 1, "a tied table is stored once"
    config = json.loads((tmp_path / "again/config.json").read_text())
    assert config["hidden_size"] == HIDDEN
    assert config["vocab_size"] == WORDS
    load_mosaicbert(tmp_path / "again", trusted=True)


def test_safetensors_without_the_tied_copy(published, tensors, tmp_path):
    inputs = batch("bert")
    expected = load_mosaicbert(published, trusted=True)(**inputs).logits
    (published / "pytorch_model.bin").unlink()
    del tensors["cls.predictions.decoder.weight"]
    save_file(tensors, published / "model.safetensors")
    assert torch.equal(load_mosaicbert(published, trusted=True)(**inputs).logits, expected)


def test_it_goes_on_as_any_model(published, tmp_path):
    """Unpadding and the head's shortcut on top; saved and loaded with another head."""
    model = load_mosaicbert(published, trusted=True)
    inputs = batch("bert")
    expected = model(**inputs).loss
    apply_unpadding(model)
    apply_sparse_prediction(model)
    assert abs(model(**inputs).loss - expected) < 1e-5
    save(model, tmp_path / "folder")
    from transformers import AutoModelForSequenceClassification

    classifier = load(tmp_path / "folder", AutoModelForSequenceClassification, num_labels=3)
    assert torch.equal(
        classifier.bert.encoder.layer[3].output.dense.weight, model.bert.encoder.layer[3].output.dense.weight
    )
    save_mosaicbert(model, tmp_path / "again")


def test_a_padded_vocabulary_is_written_as_words_that_cannot_win(tmp_path):
    model = build("bert")
    apply_alibi(model)
    apply_glu(model)
    apply_vocab_padding(model)
    inputs = batch("bert")
    expected = model(**inputs).logits
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    save_mosaicbert(model, tmp_path)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    written = load_mosaicbert(tmp_path, trusted=True)(**inputs).logits
    assert torch.equal(written[..., :VOCABULARY], expected)
    assert (written[..., VOCABULARY:] < -32000).all()


def test_the_published_config_gives_berts_own_fields(published):
    """What it says of files, classes and dtypes isn't the model's."""
    foreign = {"dtype": "bfloat16", "transformers_version": "4.16.0", "model_type": "mosaic_bert"}
    rest = {"hidden_act": "gelu_new", "max_position_embeddings": 77, "flash_attn": True}
    (published / "config.json").write_text(json.dumps({**CONFIG, **foreign, **rest}))
    config = load_mosaicbert(published, trusted=True).config
    assert (config.vocab_size, config.hidden_size, config.intermediate_size) == (WORDS, HIDDEN, INNER)
    assert (config.hidden_act, config.max_position_embeddings) == ("gelu_new", 77)
    assert (config.model_type, config.dtype, config.architectures) == ("bert", None, None)
    fields = config.to_dict()
    assert fields["transformers_version"] != "4.16.0"
    assert not {"alibi_starting_size", "auto_map", "flash_attn"} & fields.keys()


def test_a_loaded_model_evaluates(published):
    assert not load_mosaicbert(published, trusted=True).training


def test_safetensors_come_before_pickles(published, tensors):
    doubled = {name: 2 * tensor for name, tensor in tensors.items()}
    del doubled["cls.predictions.decoder.weight"]
    save_file(doubled, published / "model.safetensors")
    words = load_mosaicbert(published, trusted=True).bert.embeddings.word_embeddings.weight
    assert torch.equal(words, doubled["bert.embeddings.word_embeddings.weight"])


def test_the_config_that_is_written(published, tmp_path):
    model = load_mosaicbert(published, trusted=True)
    model.config.max_position_embeddings = 99
    for _ in range(2):
        folder = save_mosaicbert(model, tmp_path / "a" / "b")
    assert folder == tmp_path / "a" / "b"
    text = (folder / "config.json").read_text()
    assert text.startswith("{\n  ")
    assert text.endswith("}\n")
    assert json.loads(text)["alibi_starting_size"] == 99
    padded = build("bert")
    for apply in (apply_alibi, apply_glu, apply_vocab_padding, apply_unpadding):
        apply(padded)
    fields = json.loads((save_mosaicbert(padded, tmp_path / "padded") / "config.json").read_text())
    assert fields["vocab_size"] == 128
    with pytest.raises(ModelError, match="LlamaForCausalLM after no surgery is not a MosaicBERT"):
        save_mosaicbert(build("llama"), tmp_path / "llama")


@pytest.mark.parametrize("apply", [apply_alibi, apply_glu, apply_unpadding])
def test_one_surgery_is_no_mosaicbert(apply, tmp_path):
    model = build("bert")
    apply(model)
    with pytest.raises(ModelError, match="is not a MosaicBERT"):
        save_mosaicbert(model, tmp_path / "out")


class Foreign:
    """What another program may put into a file."""


def test_a_file_is_read_without_running_it(published, tensors):
    torch.save({**tensors, "more": Foreign()}, published / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"(?s)pytorch_model\.bin can't be read: .*Foreign"):
        load_mosaicbert(published, trusted=True)


def test_files_that_are_missing_or_cut_off(published, tensors):
    whole = (published / "pytorch_model.bin").read_bytes()
    (published / "pytorch_model.bin").write_bytes(whole[:-1000])
    with pytest.raises(ModelError, match=r"pytorch_model\.bin can't be read"):
        load_mosaicbert(published, trusted=True)
    (published / "model.safetensors").write_bytes(b"short")
    with pytest.raises(ModelError, match=r"model\.safetensors can't be read"):
        load_mosaicbert(published, trusted=True)
    (published / "model.safetensors").unlink()
    del tensors["bert.embeddings.word_embeddings.weight"]
    torch.save(tensors, published / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"it has no bert\.embeddings\.word_embeddings\.weight"):
        load_mosaicbert(published, trusted=True)
    (published / "config.json").unlink()
    with pytest.raises(ModelError, match=r"there is no .*config\.json; it is published beside the weights"):
        load_mosaicbert(published, trusted=True)


def test_what_is_no_mosaicbert_is_said(published, tensors, tmp_path):
    def refused(folder, message):
        with pytest.raises(ModelError, match=message):
            load_mosaicbert(folder, trusted=True)

    refused(tmp_path / "nowhere", "holds neither pytorch_model.bin nor model.safetensors")
    torch.save({**tensors, "more": torch.ones(1)}, published / "pytorch_model.bin")
    refused(published, r'Unexpected key\(s\) in state_dict: "more"')
    torch.save(
        {k: v for k, v in tensors.items() if "layer.3.mlp.wo" not in k}, published / "pytorch_model.bin"
    )
    refused(published, "encoder.layer.3.output.dense.weight")
    torch.save(
        {**tensors, "cls.predictions.decoder.weight": torch.ones(WORDS, HIDDEN)},
        published / "pytorch_model.bin",
    )
    refused(published, "isn't tied")
    (published / "pytorch_model.bin").write_bytes(b"version https://git-lfs")
    refused(published, "can't be read")
    model = build("bert")
    apply_alibi(model)
    with pytest.raises(ModelError, match=r"BertForMaskedLM after ALiBi\(\) is not a MosaicBERT"):
        save_mosaicbert(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()
