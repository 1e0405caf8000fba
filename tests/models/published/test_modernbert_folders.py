"""ModernBERT's published layout: read to stock transformers' logits, written back bit for bit."""

import json

import peft
import pytest
import torch
from families import batch, build
from safetensors.torch import load_file, save_file
from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification, BertForMaskedLM

from cadenza.algorithms import (
    apply_glu,
    apply_no_bias,
    apply_post_training_quantization,
    apply_pre_norm,
    apply_qk_norm,
    apply_rotary,
    apply_sliding_window,
    apply_sparse_prediction,
    apply_unpadding,
    apply_vocab_padding,
)
from cadenza.models import ModelError, load, load_modernbert, save, save_modernbert
from cadenza.surgery import SurgeryError
from cadenza.surgery.ledger import history

WORDS, HIDDEN, INNER, HEADS, LAYERS = 96, 48, 40, 4, 7
OLD = {  # the fields that answerdotai/ModernBERT-base was published with, before transformers 5
    "architectures": ["ModernBertForMaskedLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 1,
    "classifier_activation": "gelu",
    "classifier_bias": False,
    "classifier_dropout": 0.0,
    "classifier_pooling": "mean",
    "cls_token_id": 1,
    "decoder_bias": True,
    "deterministic_flash_attn": False,
    "embedding_dropout": 0.0,
    "eos_token_id": 2,
    "global_attn_every_n_layers": 3,
    "global_rope_theta": 160000.0,
    "gradient_checkpointing": False,
    "hidden_activation": "gelu",
    "hidden_size": HIDDEN,
    "initializer_cutoff_factor": 2.0,
    "initializer_range": 0.02,
    "intermediate_size": INNER,
    "layer_norm_eps": 1e-05,
    "local_attention": 8,
    "local_rope_theta": 10000.0,
    "max_position_embeddings": 8192,
    "mlp_bias": False,
    "mlp_dropout": 0.0,
    "model_type": "modernbert",
    "norm_bias": False,
    "norm_eps": 1e-05,
    "num_attention_heads": HEADS,
    "num_hidden_layers": LAYERS,
    "pad_token_id": 3,
    "position_embedding_type": "absolute",
    "sep_token_id": 2,
    "tie_word_embeddings": True,
    "torch_dtype": "float32",
    "vocab_size": WORDS,
}


def layout(bias=True):
    """Names and shapes of the published file, without the tied decoder."""
    shapes = {
        "model.embeddings.tok_embeddings.weight": (WORDS, HIDDEN),
        "model.embeddings.norm.weight": (HIDDEN,),
        "model.final_norm.weight": (HIDDEN,),
        "head.dense.weight": (HIDDEN, HIDDEN),
        "head.norm.weight": (HIDDEN,),
    }
    for number in range(LAYERS):
        layer = f"model.layers.{number}"
        shapes |= {
            f"{layer}.attn.Wqkv.weight": (3 * HIDDEN, HIDDEN),
            f"{layer}.attn.Wo.weight": (HIDDEN, HIDDEN),
            f"{layer}.mlp_norm.weight": (HIDDEN,),
            f"{layer}.mlp.Wi.weight": (2 * INNER, HIDDEN),
            f"{layer}.mlp.Wo.weight": (HIDDEN, INNER),
        }
        if number:
            shapes[f"{layer}.attn_norm.weight"] = (HIDDEN,)
    return shapes | ({"decoder.bias": (WORDS,)} if bias else {})


def drawn(bias=True, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return {
        name: (0.2 * torch.randn(shape, generator=generator)).to(dtype)
        for name, shape in layout(bias).items()
    }


@pytest.fixture
def publish(tmp_path):
    """Writes a published folder with other fields or tensors than ModernBERT-base's."""

    def write(tensors=None, name="published", **fields):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        save_file(drawn() if tensors is None else tensors, folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps({**OLD, **fields}))
        return folder

    return write


@pytest.fixture
def published(publish):
    return publish()


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


def from_stock_bert(**fields):
    own = {"type_vocab_size": 1, "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
    model = build("bert", num_hidden_layers=4, **{**own, **fields})
    for apply in (apply_pre_norm, apply_no_bias, apply_rotary, apply_glu):
        apply(model)
    return model


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


REFUSED = [
    ({"attention_bias": True}, "attention_bias is True; it must be False, because"),
    ({"mlp_bias": True}, "mlp_bias is True; it must be False, because"),
    ({"norm_bias": True}, "norm_bias is True; it must be False, because"),
    ({"classifier_bias": True}, "classifier_bias is True; it must be False, because"),
    ({"tie_word_embeddings": False}, "tie_word_embeddings is False; it must be True, because"),
    ({"sparse_prediction": True}, "sparse_prediction is True; it must be False, because apply_sparse"),
    ({"hidden_activation": "gelu_new"}, "hidden_activation is 'gelu_new'; glu has gelu, silu, relu"),
    ({"mlp_dropout": 0.1}, "mlp_dropout, attention_dropout are 0.0, 0.1, 0.0; they must be equal"),
    ({"head_dim": 16}, "head_dim is 16; it must be hidden_size / num_attention_heads, 12"),
    ({"local_attention": 7}, "local_attention is 7; it must be even"),
    ({"local_attention": 0}, "local_attention is 0; it must be even"),
    ({"layer_types": ["sliding_attention", "full_attention"] * 3 + ["full_attention"]}, r"at \[1, 3, 5, 6\]"),
    ({"layer_types": ["full_attention"] * 2 + ["sliding_attention"] * 5}, r"layer_types .* at \[0, 1\]"),
    (
        {"rope_scaling": {"rope_type": "linear", "factor": 2.0}},
        "rope_parameters.full_attention has .*'factor'",
    ),
    ({"global_rope_theta": 0.5}, "theta"),
    ({"model_type": "bert"}, "model_type is 'bert'; it must be 'modernbert'"),
    ({"hidden_size": "48"}, "transformers can't read it"),
]


@pytest.mark.parametrize(("fields", "message"), REFUSED, ids=[next(iter(fields)) for fields, _ in REFUSED])
def test_what_has_no_equal_is_refused(publish, fields, message):
    with pytest.raises(ModelError, match=rf"load_modernbert: .*config\.json: .*{message}") as raised:
        load_modernbert(publish(**fields))
    assert "\n" not in str(raised.value)


def test_what_is_no_modernbert_is_said(publish, tmp_path):
    def refused(folder, message):
        with pytest.raises(ModelError, match=message) as raised:
            load_modernbert(folder)
        assert "\n" not in str(raised.value)

    refused(tmp_path / "nowhere", r"there is no .*config\.json")
    tensors = drawn()
    refused(publish({**tensors, "more": torch.ones(1)}), "ModernBertForMaskedLM doesn't have more")
    few = {name: tensor for name, tensor in tensors.items() if "layers.3" not in name}
    refused(publish(few), r"it lacks model\.layers\.3\.attn\.Wo\.weight, .* and 2 more")
    refused(
        publish({**tensors, "head.norm.weight": torch.ones(HIDDEN).bfloat16()}),
        "torch.bfloat16, torch.float32",
    )
    refused(publish(intermediate_size=INNER + 8), "isn't in ModernBERT's layout: .*size mismatch")
    refused(publish(num_hidden_layers=LAYERS - 1), r"doesn't have model\.layers\.6")
    folder = publish()
    (folder / "config.json").write_text("{")
    refused(folder, "not valid JSON")
    (folder / "config.json").write_text(json.dumps(OLD))
    (folder / "model.safetensors").write_bytes(b"version https://git-lfs")
    refused(folder, "can't be read")
    (folder / "model.safetensors").unlink()
    refused(folder, "holds neither pytorch_model.bin nor model.safetensors")


def test_what_cannot_be_written(tmp_path):
    def refused(model, message):
        with pytest.raises(ModelError, match=message):
            save_modernbert(model, tmp_path / "out")
        assert not (tmp_path / "out").exists()

    refused(build("llama"), "LlamaForCausalLM after no surgery is not a ModernBERT")
    refused(build("modernbert"), "ModernBertForMaskedLM after no surgery is not a ModernBERT")
    half = build("bert", type_vocab_size=1)
    apply_rotary(half)
    apply_glu(half)
    refused(half, "BertForMaskedLM after GLU, Rotary is not a ModernBERT; it must be .*PreNorm")
    more = from_stock_bert()
    apply_qk_norm(more)
    refused(more, "QKNorm.* is not a ModernBERT")
    refused(from_stock_bert(type_vocab_size=2), r"token_type|one token type")
    refused(from_stock_bert(hidden_dropout_prob=0.2), r"hidden_dropout_prob is 0\.2, .*must be equal")
    adapted = from_stock_bert()
    peft.inject_adapter_in_model(peft.LoraConfig(target_modules=["query"]), adapted)
    with pytest.raises(SurgeryError, match="holds adapters of peft; merge them"):
        save_modernbert(adapted, tmp_path / "out")
    extra = from_stock_bert()
    extra.register_parameter("mine", torch.nn.Parameter(torch.ones(2)))
    refused(extra, "ModernBERT has no mine")
