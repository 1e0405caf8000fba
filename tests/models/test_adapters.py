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
from cadenza.models import ModelError, causal_lm, export
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
