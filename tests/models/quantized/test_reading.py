"""Folders in the layout of bitsandbytes, written here and by transformers, are read as our technique."""

import json

import pytest
import torch
from bitsandbytes.nn import Linear4bit
from families import batch, build
from peft import get_peft_model
from safetensors.torch import load_file, save_file
from saved import same
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, BitsAndBytesConfig

from cadenza.algorithms import apply_post_training_quantization
from cadenza.models import ModelError, causal_lm, load, save
from cadenza.models.lora import lora_config
from cadenza.models.pretrained import loading
from cadenza.models.quantized.tensors import FOUR_BIT, LIBRARY
from cadenza.quantization.stored.quantized_linear import Quantized
from cadenza.surgery import history

WIDE = {"hidden_size": 64, "intermediate_size": 128}


def logits(model):
    with torch.no_grad():
        return model(batch("llama")["input_ids"]).logits


def ours(folder, format="nf4", **options):
    model = build("llama", **WIDE)
    apply_post_training_quantization(model, format, **options)
    save(model, folder, format="bitsandbytes")
    return model


def theirs(folder, format, **options):
    """What transformers writes of a model that it quantized."""
    build("llama", **WIDE).save_pretrained(folder / "full")
    settings = {"load_in_8bit": True}
    if format != "int8":
        kind, double = FOUR_BIT[format]
        settings = {"load_in_4bit": True, "bnb_4bit_quant_type": kind, "bnb_4bit_use_double_quant": double}
    settings = BitsAndBytesConfig(**settings, **options)
    model = AutoModelForCausalLM.from_pretrained(folder / "full", quantization_config=settings)
    model.save_pretrained(folder / "quantized")
    return folder / "quantized"


@pytest.mark.parametrize("format", LIBRARY)
@pytest.mark.parametrize("options", [{}, {"except_": ["*.q_proj"]}])
def test_read_back(format, options, tmp_path):
    model = ours(tmp_path, format, **options)
    again = load(tmp_path)
    same(model, again)
    assert torch.equal(logits(model), logits(again))
    assert again.name_or_path == str(tmp_path)
    save(again, tmp_path / "second", format="bitsandbytes")
    first, second = ((each / "config.json").read_text() for each in (tmp_path, tmp_path / "second"))
    assert json.loads(first) == json.loads(second)


@pytest.mark.parametrize("format", LIBRARY)
def test_what_transformers_wrote_is_read(format, tmp_path):
    """With the codes that our own quantization gives."""
    folder = theirs(tmp_path, format)
    read, model = load(folder), build("llama", **WIDE)
    apply_post_training_quantization(model, format)
    assert list(read.state_dict()) == list(model.state_dict())
    assert all(
        torch.equal(a, b)
        for a, b in zip(read.state_dict().values(), model.state_dict().values(), strict=True)
    )
    assert torch.equal(logits(read), logits(model))
    (entry,) = history(read)
    assert dict(entry.options) == {"format": format, "only": None, "except_": None, "compute_dtype": None}


def test_its_selection_and_dtype_are_read(tmp_path):
    folder = theirs(
        tmp_path, "nf4", llm_int8_skip_modules=["lm_head", "o_proj"], bnb_4bit_compute_dtype=torch.bfloat16
    )
    (entry,) = history(load(folder))
    assert entry.options["except_"] == [f"model.layers.{n}.self_attn.o_proj" for n in (0, 1)]
    assert entry.options["compute_dtype"] == "bfloat16"
    folder = theirs(tmp_path / "head", "nf4", llm_int8_skip_modules=["gate_proj"])
    read = load(folder)
    assert isinstance(read.lm_head, Quantized)
    assert "lm_head" in history(read)[0].options["only"]


def test_packed_in_floats(tmp_path):
    """As for FSDP, which wants one dtype."""
    folder = theirs(tmp_path, "nf4-dq", bnb_4bit_quant_storage=torch.bfloat16)
    model = build("llama", **WIDE)
    apply_post_training_quantization(model, "nf4-dq")
    assert torch.equal(logits(load(folder)), logits(model))


def test_shards(tmp_path):
    """A layer's tensors may be in several files."""
    model = ours(tmp_path)
    whole = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    places = {key: f"model-{number % 2}.safetensors" for number, key in enumerate(whole)}
    for name in set(places.values()):
        part = {key: tensor for key, tensor in whole.items() if places[key] == name}
        save_file(part, tmp_path / name, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": places}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    same(model, load(tmp_path))


def test_a_recipe_adapts_it(tmp_path):
    model = ours(tmp_path)
    made = causal_lm(pretrained=str(tmp_path), lora={"r": 2})
    layers = [m for m in made.model.modules() if isinstance(m, Quantized)]
    assert len(layers) == 14
    assert not any(isinstance(m, Linear4bit) for m in made.model.modules())
    assert torch.equal(logits(made.model.eval()), logits(model))  # lora_B is zero
    report = apply_post_training_quantization(made, "nf4")  # as the recipe may say again
    assert report.already == 14


def test_a_name_of_the_hub_too(tmp_path, monkeypatch):
    model = ours(tmp_path)

    class Hub(AutoModelForCausalLM):
        @classmethod
        def from_pretrained(cls, source, **options):
            assert source == "some/name"
            return AutoModelForCausalLM.from_pretrained(tmp_path, **options)

    monkeypatch.setattr(loading.hub, "reachable", lambda: True)
    monkeypatch.setattr(loading, "snapshot_download", lambda name, local_files_only: str(tmp_path))
    read = loading.pretrained_model(Hub, "some/name", {}, "sdpa")
    same(model, read)


def test_another_head(tmp_path):
    ours(tmp_path)
    read = load(tmp_path, AutoModelForSequenceClassification, num_labels=3)
    assert type(read.score) is torch.nn.Linear
    assert sum(isinstance(m, Quantized) for m in read.modules()) == 14


def test_adapters_know_their_base(tmp_path):
    ours(tmp_path)
    adapted = get_peft_model(load(tmp_path), lora_config({"r": 2}, causal=True))
    assert adapted.peft_config["default"].base_model_name_or_path == str(tmp_path)


PATH = "model.layers.0.mlp.up_proj"


def test_what_cannot_be_read_is_said(tmp_path):
    ours(tmp_path)
    whole = load_file(tmp_path / "model.safetensors")
    cases = (
        (f"{PATH}.weight.quant_map", lambda t: t + 1, "only bitsandbytes' own values in blocks of 64"),
        (f"{PATH}.weight.quant_state.bitsandbytes__nf4", lambda t: None, "quantization state can't be read"),
        (f"{PATH}.weight", lambda t: None, f"{PATH} has weight.absmax, .* but no weight"),
    )
    for key, edit, said in cases:
        tensors = {**whole, key: edit(whole[key])}
        tensors = {name: tensor for name, tensor in tensors.items() if tensor is not None}
        save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(ModelError, match=said):
            load(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"weights in .* can't be read"):
        load(tmp_path)


def test_another_threshold_is_refused(tmp_path):
    folder = theirs(tmp_path, "int8", llm_int8_threshold=4.0)
    with pytest.raises(ModelError, match=r"int8 is read with llm_int8_threshold 6.0"):
        load(folder)
    gpt2 = build("gpt2", n_embd=64)
    gpt2.save_pretrained(tmp_path / "gpt2")
    settings = BitsAndBytesConfig(load_in_4bit=True)
    stock = AutoModelForCausalLM.from_pretrained(tmp_path / "gpt2", quantization_config=settings)
    stock.save_pretrained(tmp_path / "conv")
    with pytest.raises(ModelError, match=r"is a Conv1D in few bits; only layers of nn.Linear can be read"):
        load(tmp_path / "conv")
