"""The bytes that are counted on shapes, against those of real steps of real models on real batches.

The real ones are counted by torch's profiler, which sees each allocation of the CPU's allocator and nothing
of this package.
"""

import gc

import pytest
import torch
from real_steps import peak_of_run, rise

from cadenza.recipe import load
from cadenza.recipe.memory import Setting, estimate

SIZE = "{hidden_size: 64, num_hidden_layers: 3, num_attention_heads: 4, intermediate_size: 128, %s}"
LLAMA = SIZE % "num_key_value_heads: 2, max_position_embeddings: 2048"
DECODER = "{objective: causal_lm, model_type: llama, config: %s, gradient_checkpointing: %s}"
CASES = {
    "decoder": (DECODER % (LLAMA, "false"), 128, 4, 4),
    "decoder, checkpointed": (DECODER % (LLAMA, "true"), 128, 4, 4),
    "decoder, a long window": (DECODER % (LLAMA, "true"), 2048, 1, 1),
    "decoder, micro-batches": (DECODER % (LLAMA, "false"), 128, 8, 2),
    "encoder": ("{model_type: bert, config: %s}" % (SIZE % "max_position_embeddings: 128"), 64, 4, 4),
    "encoder, labelled tokens alone": (
        "{model_type: bert, config: %s}\nalgorithms: {sparse_prediction: {}}"
        % (SIZE % "max_position_embeddings: 128"),
        64,
        4,
        4,
    ),
    "decoder, adapters": (
        DECODER[:-1] % (LLAMA, "true") + ", pretrained: null, lora: {r: 4}}",
        128,
        4,
        4,
    ),
}
RECIPE = """
model: {}
tokenizer: {{name: byte_bpe, vocab_size: 600}}
data: {{max_seq_len: {}, eval_documents: 4}}
optimizer: {{name: adamw}}
train: {{global_batch_size: {}, device_train_microbatch_size: {}, precision: fp32}}
"""


@pytest.fixture
def recipe(tmp_path):
    def recipe(*parts, **others):
        path = tmp_path / "recipe.yaml"
        path.write_text(RECIPE.format(*parts))
        return load([str(path)], [f"{key}={value}" for key, value in others.items()])

    return recipe


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_the_total_is_the_peak_of_a_real_step(case, recipe):
    found = recipe(*CASES[case])
    estimated = estimate(Setting.of(found, 1, cuda=False))
    gc.collect()
    measured = peak_of_run(found)
    assert estimated.total == pytest.approx(measured, rel=0.01), estimated.parts


@pytest.mark.slow
@pytest.mark.parametrize("name", ["muon", "stable_adamw"])
@pytest.mark.parametrize("case", ["decoder", "encoder"])
def test_other_optimizers(case, name, recipe):
    if name == "muon" and not hasattr(torch.optim, "Muon"):
        pytest.skip("NOT VERIFIED HERE: torch.optim.Muon needs torch 2.9")
    found = recipe(*CASES[case], **{"optimizer.name": name})
    estimated = estimate(Setting.of(found, 1, cuda=False))
    gc.collect()
    measured = peak_of_run(found)
    assert estimated.total == pytest.approx(measured, rel=0.01), estimated.parts


def test_nothing_is_allocated(recipe):
    """A model of 8 billion parameters at 131,072 tokens."""
    large = recipe(
        *CASES["decoder, checkpointed"],
        **{
            "model.config.hidden_size": 4096,
            "model.config.intermediate_size": 14336,
            "model.config.vocab_size": 128_256,
            "data.max_seq_len": 131_072,
        },
    )
    found = []
    assert rise(lambda: found.append(estimate(Setting.of(large, 1, cuda=True)))) < 2**24
    assert found[0].total > 2**36
