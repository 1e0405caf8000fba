"""What is no published ModernBERT, or can't be written as one, is refused in a line."""

import json

import peft
import pytest
import torch
from families import build
from modernbert_layout import HIDDEN, INNER, LAYERS, OLD, drawn, from_stock_bert

from cadenza.algorithms import apply_glu, apply_qk_norm, apply_rotary
from cadenza.models import ModelError, load_modernbert, save_modernbert
from cadenza.surgery import SurgeryError

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
