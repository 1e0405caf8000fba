"""Recipes of each kind on a GPU, in the precision, micro-batches and kernels that they pick there."""

import json
import warnings

import pytest
from devices import trained_on

from cadenza.recipe import load as load_recipe
from cadenza.recipe import run

TEXT = """
name: tiny
model: {config: {hidden_size: 64, num_hidden_layers: 2, num_attention_heads: 4, intermediate_size: 96}}
tokenizer: {vocab_size: 300}
data: {max_seq_len: 64, eval_fraction: 0.2}
optimizer: {lr: 3e-3}
scheduler: {t_warmup: 0ba}
train: {max_duration: 6ba, global_batch_size: 8, eval_interval: 1dur, save_interval: 3ba, progress_bar: false}
"""
CAUSAL = ["model.objective=causal_lm", "model.model_type=llama", "algorithms.flash_attention="]
KINDS = {
    "masked LM": [
        f"algorithms.{name}="
        for name in (
            "alibi",
            "glu",
            "low_precision_norm",
            "vocab_padding",
            "unpadding",
            "sparse_prediction",
            "flash_attention",
            "sequence_packing",
        )
    ],
    "windows": [*CAUSAL, "algorithms.anchor_attention=", "algorithms.bf16_safe_rope="],
    "windows, varlen": [
        *(*CAUSAL, "algorithms.anchor_attention=", "algorithms.bf16_safe_rope="),
        "algorithms.flash_attention={kernel: varlen}",
    ],
    "modern encoder, Muon": [
        *(f"algorithms.{name}=" for name in ("glu", "rotary", "pre_norm", "qk_norm", "rms_norm", "no_bias")),
        *("algorithms.unpadding=", "algorithms.sparse_prediction=", "algorithms.flash_attention="),
        *("algorithms.sliding_window={window: 16, global_every: 2}", "optimizer.name=muon"),
    ],
    "chunked loss": [*CAUSAL, "algorithms.chunked_loss="],
    "few bits, learned scales": ["algorithms.quantization_aware_training={scales: learned}"],
    "few bits": ["algorithms.quantization_aware_training=", "algorithms.unpadding="],
    "4-bit weights with adapters": [
        *(*CAUSAL, "algorithms.post_training_quantization=", "algorithms.anchor_attention="),
        "model.lora={r: 4, target_modules: all-linear}",
    ],
}
IMAGES = """
name: tiny
model: {objective: image_classification, model_type: resnet10, width: 0.125, stem: small}
data: {augmentation: crop_flip}
algorithms: {quantization_aware_training: {calibrate_until: 20ba}}
optimizer: {name: sgd, lr: 0.1}
scheduler: {t_warmup: 0ba}
train: {max_duration: 3ep, global_batch_size: 32, eval_interval: 1dur, progress_bar: false}
"""


def played(text, overrides, tmp_path):
    """The record of a run of this recipe, and its folder."""
    (tmp_path / "tiny.yaml").write_text(text)
    runs = f"train.run_folder={tmp_path / 'runs'}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        recipe = load_recipe([str(tmp_path / "tiny.yaml")], [runs, *overrides])
        return json.loads(run.train(recipe).read_text()), tmp_path / "runs" / "tiny"


@pytest.mark.slow
@trained_on
@pytest.mark.parametrize("kind", KINDS)
def test_text_recipes_learn(device, kind, text, tmp_path):
    if device == "cpu" and "varlen" in kind:
        pytest.skip("the kernel is for CUDA")
    record, folder = played(TEXT, [f"data.source={text}", *KINDS[kind]], tmp_path)
    assert record["train"]["batches"] == 6
    assert record["eval"]["loss"] < 5.7, "six batches beat chance, which is ln 300"
    assert list(folder.glob("checkpoints/*-ba6-rank0.pt"))


@pytest.mark.slow
@trained_on
def test_an_image_recipe_learns(device, tmp_path):
    record, _ = played(IMAGES, [], tmp_path)
    assert record["eval"]["top1"] > 0.3, "three epochs beat one digit in ten"
