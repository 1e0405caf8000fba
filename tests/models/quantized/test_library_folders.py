"""Folders in the layout of bitsandbytes: stock transformers computes the same from them."""

import json
import subprocess
import sys

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit, int8_vectorwise_dequant
from bitsandbytes.nn import Linear4bit, Linear8bitLt
from families import batch, build
from patience import PATIENCE
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, FalconConfig, FalconForCausalLM

from cadenza.algorithms import apply_alibi, apply_post_training_quantization, apply_unpadding
from cadenza.models import ModelError, load, save
from cadenza.models.quantized.tensors import LIBRARY
from cadenza.quantization.stored.quantized_linear import Quantized

WIDE = {"hidden_size": 64, "intermediate_size": 128}  # the library's kernels want multiples of 64
CASES = {
    "llama": {},
    "qwen3": {"attention_bias": True, "head_dim": 16},
    "bert": {},
    "modernbert": {},
}
AUTO = {"llama": "AutoModelForCausalLM", "qwen3": "AutoModelForCausalLM"}


def quantized(family="llama", format="nf4", **options):
    model = build(family, **WIDE, **CASES[family])
    apply_post_training_quantization(model, format, **options)
    return model


def logits(model, family):
    inputs = {key: value for key, value in batch(family).items() if key != "labels"}
    with torch.no_grad():
        return model(**inputs).logits


ALONE = """
import sys
sys.modules["cadenza"] = None  # as where it isn't installed
import torch, transformers
from bitsandbytes.nn import Linear4bit
for folder, auto, inputs in torch.load(sys.argv[1]):
    model = getattr(transformers, auto).from_pretrained(folder)
    for layer in model.modules():  # on CPUs with AVX512_BF16 it would compute in bfloat16, and not at all in
        if isinstance(layer, Linear4bit):  # layers with odd sizes
            layer.support_avx512bf16_for_cpu = False
    with torch.no_grad():
        torch.save(model(**inputs).logits, folder + "/logits.pt")
"""


@pytest.mark.slow
def test_stock_code_computes_the_same(tmp_path):
    """In 4 bits with no difference; the library's int8 rounds the scales of its products to 2e-5."""
    jobs, expected = [], {}
    for family in CASES:
        for format in LIBRARY:
            folder = str(
                save(quantized(family, format), tmp_path / f"{family}-{format}", format="bitsandbytes")
            )
            inputs = {key: value for key, value in batch(family).items() if key != "labels"}
            jobs.append((folder, AUTO.get(family, "AutoModelForMaskedLM"), inputs))
            expected[folder] = logits(quantized(family, format), family)
    torch.save(jobs, tmp_path / "jobs.pt")
    command = [sys.executable, "-W", "ignore", "-c", ALONE, str(tmp_path / "jobs.pt")]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    for folder, ours in expected.items():
        difference = (torch.load(f"{folder}/logits.pt") - ours).abs().max()
        # A rounding of an input of int8 may turn over: a step of 1/127 of the largest input of a row.
        assert difference <= (0.02 * ours.abs().max() if folder.endswith("int8") else 0), folder


@pytest.mark.parametrize("format", LIBRARY)
def test_the_weights_are_those_of_the_library(format, tmp_path):
    ours = quantized(format=format)
    save(ours, tmp_path, format="bitsandbytes")
    assert not (tmp_path / "cadenza_remote.py").exists()
    stock = AutoModelForCausalLM.from_pretrained(tmp_path)
    layers = {path: m for path, m in stock.named_modules() if isinstance(m, Linear4bit | Linear8bitLt)}
    mine = {path: m for path, m in ours.named_modules() if isinstance(m, Quantized)}
    assert layers.keys() == mine.keys()
    for path, layer in layers.items():
        weight = layer.weight
        if format == "int8":
            theirs = int8_vectorwise_dequant(weight.data, weight.SCB)
            assert torch.allclose(theirs, mine[path].dequantized(), rtol=2**-22, atol=0)  # by 1/127, or / 127
            assert torch.equal(weight.data, mine[path]._buffers["weight"][..., 0])
        else:
            assert torch.equal(dequantize_4bit(weight.data, weight.quant_state), mine[path].dequantized())


def test_the_config_is_the_library_s(tmp_path):
    save(quantized("bert", "nf4-dq", except_="*.query"), tmp_path, format="bitsandbytes")
    fields = json.loads((tmp_path / "config.json").read_text())
    assert fields["model_type"] == "bert"
    assert "auto_map" not in fields
    settings = fields["quantization_config"]
    assert settings["bnb_4bit_quant_type"] == "nf4"
    assert settings["bnb_4bit_use_double_quant"]
    assert settings["bnb_4bit_compute_dtype"] == "float32"
    queries = [f"encoder.layer.{n}.attention.self.query" for n in (0, 1)]
    wanted = {"cls.predictions.decoder", *queries, *(f"bert.{path}" for path in queries)}
    assert set(settings["llm_int8_skip_modules"]) == wanted
    stock = AutoModelForMaskedLM.from_pretrained(tmp_path)
    assert type(stock.bert.encoder.layer[0].attention.self.query) is torch.nn.Linear
    assert type(stock.bert.encoder.layer[0].attention.self.key) is Linear4bit
    assert "with bitsandbytes |" in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype, tmp_path):
    build("llama", **WIDE).save_pretrained(tmp_path / "full")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "full", dtype=dtype)
    apply_post_training_quantization(model, "nf4")
    save(model, tmp_path / "few", format="bitsandbytes")
    settings = json.loads((tmp_path / "few" / "config.json").read_text())["quantization_config"]
    assert settings["bnb_4bit_compute_dtype"] == str(dtype).removeprefix("torch.")
    again = load(tmp_path / "few")
    assert again.dtype == dtype
    assert torch.equal(logits(again, "llama"), logits(model, "llama"))


def test_a_surgery_that_keeps_outputs_stays(tmp_path):
    model = quantized()
    apply_unpadding(model)
    save(model, tmp_path, format="bitsandbytes")
    again = load(tmp_path)
    assert torch.equal(logits(again, "llama"), logits(model, "llama"))
    fields = json.loads((tmp_path / "config.json").read_text())
    assert set(fields["cadenza"]["surgeries"]) == {"PostTrainingQuantization", "Unpadding"}


def refused(model, tmp_path, match, format="bitsandbytes"):
    with pytest.raises(ModelError, match=match):
        save(model, tmp_path / "folder", format=format)
    assert not (tmp_path / "folder").exists()


def test_what_stock_code_cannot_compute_is_refused(tmp_path):
    refused(build("llama"), tmp_path, "has no quantized layer; leave out format")
    refused(quantized(), tmp_path, "format is 'gguf'; it must be 'bitsandbytes' or None", format="gguf")
    changed = build("bert", **WIDE)
    apply_alibi(changed)
    apply_post_training_quantization(changed, "nf4")
    refused(changed, tmp_path, r"can't compute the outputs after ALiBi\(")
    narrow = build("llama", hidden_size=32)
    apply_post_training_quantization(narrow, "nf4")
    refused(narrow, tmp_path, "q_proj has 32 inputs, and the library's kernel for CPUs")
    refused(
        quantized(format="int8", compute_dtype="bfloat16"),
        tmp_path,
        "computes in float32, .* not in bfloat16",
    )
    double = build("llama", **WIDE).double()
    apply_post_training_quantization(double, "nf4")
    refused(double, tmp_path, "computes in float32, bfloat16, float16, not in float64")


def test_layers_of_other_classes_are_refused(tmp_path):
    config = FalconConfig(
        vocab_size=90,
        hidden_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
        new_decoder_architecture=False,
    )
    model = FalconForCausalLM(config).eval()
    apply_post_training_quantization(model, "nf4")
    refused(model, tmp_path, "is a FalconLinear; transformers quantizes nn.Linear")


def test_a_selection_that_transformers_cannot_express_is_refused(tmp_path):
    """Its list of skipped layers also names ends of paths: `proj` would skip `inner.proj`."""
    model = build("llama", **WIDE)
    model.proj = torch.nn.Linear(64, 64)
    model.model.layers[0].self_attn.proj = torch.nn.Linear(64, 64)
    apply_post_training_quantization(model, "nf4", only="*.self_attn.proj")
    refused(model, tmp_path, "can't express which layers are quantized: .* would also skip .*self_attn.proj")
