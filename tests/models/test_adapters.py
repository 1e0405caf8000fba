"""Checkpoints of LoRA runs: exported as adapters, and merged into the model that they adapt."""

import warnings

import peft
import pytest
import torch
from composer import Trainer
from families import batch, build
from safetensors.torch import load_file
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM

from cadenza.algorithms import ALiBi, PostTrainingQuantization, Unpadding
from cadenza.cli.main import main
from cadenza.models import ModelError, causal_lm, export, load
from cadenza.quantization.stored.quantized_linear import Quantized
from cadenza.surgery import CheckpointError, in_order


def run_of(tmp_path, *algorithms, pretrained=True):
    """The checkpoint of a LoRA run of two batches on a small Llama, and the trained model."""
    base = build("llama")
    base.save_pretrained(tmp_path / "base")
    source = {"pretrained": str(tmp_path / "base")} if pretrained else {"config": own_sizes(base)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = causal_lm(lora={"r": 2, "init_lora_weights": False}, **source)
        trainer = Trainer(
            model=model,
            train_dataloader=DataLoader([batch("llama", padding=None)] * 2, batch_size=None),
            optimizers=torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1),
            algorithms=in_order(algorithms),
            max_duration="2ba",
            device_train_microbatch_size=3,
            save_folder=str(tmp_path / "run"),
            progress_bar=False,
        )
        trainer.fit()
        trainer.close()
    return tmp_path / "run" / "latest-rank0.pt", trainer.state.model.model.eval()


def own_sizes(base):
    return {key: getattr(base.config, key) for key in ("hidden_size", "intermediate_size", "vocab_size")}


def logits(model):
    with torch.no_grad():
        return model(batch("llama", padding=None)["input_ids"]).logits


@pytest.mark.slow
def test_an_adapter_is_what_peft_writes(tmp_path):
    checkpoint, trained = run_of(tmp_path, Unpadding())
    folder = export(checkpoint, tmp_path / "adapter")
    trained.save_pretrained(tmp_path / "theirs")
    ours, theirs = (load_file(each / "adapter_model.safetensors") for each in (folder, tmp_path / "theirs"))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    adapted = peft.PeftModel.from_pretrained(base, folder).eval()
    assert (logits(adapted) - logits(trained)).abs().max() < 1e-5


@pytest.mark.slow
def test_a_merged_model_is_a_stock_one(tmp_path):
    checkpoint, trained = run_of(tmp_path, Unpadding())
    merged = AutoModelForCausalLM.from_pretrained(export(checkpoint, tmp_path / "merged", merge=True)).eval()
    assert type(merged).__module__.startswith("transformers.")
    assert (logits(merged) - logits(trained)).abs().max() < 1e-5
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base").eval()
    assert (logits(base) - logits(trained)).abs().max() > 1e-3


@pytest.mark.slow
def test_adapters_of_quantized_weights_are_merged_into_those_in_full_precision(tmp_path):
    checkpoint, trained = run_of(tmp_path, PostTrainingQuantization("nf4"))
    merged = AutoModelForCausalLM.from_pretrained(export(checkpoint, tmp_path / "merged", merge=True)).eval()
    adapter = export(checkpoint, tmp_path / "adapter")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    adapted = peft.PeftModel.from_pretrained(base, adapter).eval()
    assert (logits(merged) - logits(adapted)).abs().max() < 1e-5
    assert (logits(merged) - logits(trained)).abs().max() > 1e-4, "the run's weights were rounded"


@pytest.mark.slow
def test_merged_onto_what_they_were_trained_on(tmp_path):
    """Dequantized, the outputs are the run's; quantized again, they are near; onto the full weights, not."""
    checkpoint, trained = run_of(tmp_path, PostTrainingQuantization("nf4", only="*.base_layer"))
    expected, found = logits(trained), {}
    for onto in ("full", "dequantized", "quantized"):
        folder = export(checkpoint, tmp_path / onto, merge=True, onto=onto)
        read = load(folder) if onto == "quantized" else AutoModelForCausalLM.from_pretrained(folder)
        found[onto] = float((logits(read.eval()) - expected).abs().max())
    assert found["dequantized"] < 1e-5
    assert min(found["full"], found["quantized"]) > 1e-4
    assert "merged adapters into 14 quantized layers" in (tmp_path / "quantized/README.md").read_text()


@pytest.mark.slow
def test_merged_into_a_folder_of_the_library(tmp_path):
    checkpoint, _ = run_of(tmp_path, PostTrainingQuantization("int8"))
    command = ["export", str(checkpoint), str(tmp_path / "merged"), "--merge", "--format", "bitsandbytes"]
    assert main(command) == 0
    read = load(tmp_path / "merged")
    stock = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    for path, layer in read.named_modules():
        if isinstance(layer, Quantized):
            assert torch.equal(stock.get_submodule(path).weight.data, layer._buffers["weight"][..., 0])
    with pytest.raises(ModelError, match="holds adapters, which --merge adds to a whole model; --format"):
        export(checkpoint, tmp_path / "x", format="bitsandbytes")
    with pytest.raises(ModelError, match="LlamaForCausalLM has no quantized layer"):
        export(checkpoint, tmp_path / "x", merge=True, onto="full", format="bitsandbytes")
    with pytest.raises(ModelError, match="--onto quantized says where adapters are merged; add --merge"):
        export(checkpoint, tmp_path / "x", onto="quantized")
    with pytest.raises(ModelError, match="onto is 'halves'; it must be one of full, dequantized, quantized"):
        export(checkpoint, tmp_path / "x", merge=True, onto="halves")
    assert not (tmp_path / "x").exists()


@pytest.mark.slow
def test_nothing_to_merge_onto(tmp_path):
    checkpoint, _ = run_of(tmp_path)
    with pytest.raises(CheckpointError, match="its run quantized no weights; merge it onto full"):
        export(checkpoint, tmp_path / "x", merge=True, onto="quantized")


@pytest.mark.slow
def test_what_cannot_be_merged(tmp_path):
    checkpoint, _ = run_of(tmp_path / "changed", ALiBi())
    with pytest.raises(CheckpointError, match="ALiBi changed the outputs of the model; export the adapters"):
        export(checkpoint, tmp_path / "x", merge=True)
    checkpoint, _ = run_of(tmp_path / "new", pretrained=False)
    with pytest.raises(CheckpointError, match="its model was new, so its weights are in no folder"):
        export(checkpoint, tmp_path / "x", merge=True)
    checkpoint, _ = run_of(tmp_path / "moved")
    (tmp_path / "moved" / "base").rename(tmp_path / "elsewhere")
    with pytest.raises(ModelError, match=r"base, which .*latest-rank0.pt adapts, can't be loaded"):
        export(checkpoint, tmp_path / "x", merge=True)
    assert not (tmp_path / "x").exists()
