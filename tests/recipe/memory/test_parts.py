"""Each part of the table of memory: exact for weights, gradients and optimizer, and what moves it."""

import pytest
import torch

from cadenza.recipe import RecipeError, load
from cadenza.recipe.memory import Setting, estimate, lines
from cadenza.recipe.memory.table import GIB

RECIPE = """
model:
  objective: causal_lm
  model_type: llama
  config:
    {hidden_size: 64, num_hidden_layers: 2, num_attention_heads: 4, intermediate_size: 128}
tokenizer: {name: byte_bpe, vocab_size: 600}
data: {max_seq_len: 64}
optimizer: {name: adamw}
train: {global_batch_size: 8, device_train_microbatch_size: 1, precision: auto}
"""
WEIGHTS = 4 * (2 * 600 * 64 + 2 * (4 * 64 * 64 + 3 * 64 * 128 + 2 * 64) + 64)  # Llama's, untied
BUFFERS = 2 * 4 * 8  # the frequencies of the rotation, which transformers keeps twice
TENSORS = 2 + 2 * 9 + 1
FSDP = "train.parallelism_config={fsdp2: {reshard_after_forward: true}}"


@pytest.fixture
def table(tmp_path):
    def table(*pairs, devices=1, cuda=True):
        path = tmp_path / "recipe.yaml"
        path.write_text(RECIPE)
        return estimate(Setting.of(load([str(path)], list(pairs)), devices, cuda))

    return table


def test_weights_and_optimizer_are_exact(table):
    parts = table().parts
    assert parts["weights"] == WEIGHTS + BUFFERS
    assert parts["optimizer state"] == 2 * WEIGHTS + 4 * TENSORS
    assert table("optimizer.name=sgd").parts["optimizer state"] == WEIGHTS
    assert "optimizer state" not in table("optimizer.name=sgd", "optimizer.momentum=0").parts


def test_the_state_of_other_optimizers(table):
    """Muon keeps one average of the seven matrices of each of two layers, StableAdamW two of everything."""
    matrices = 4 * 2 * (4 * 64 * 64 + 3 * 64 * 128)
    assert table("optimizer.name=stable_adamw").parts["optimizer state"] == 2 * WEIGHTS + 4 * TENSORS
    if hasattr(torch.optim, "Muon"):
        found = table("optimizer.name=muon").parts["optimizer state"]
        assert found == 2 * WEIGHTS - matrices + 4 * (TENSORS - 14)


def test_several_devices_hold_buckets_of_gradients_too(table):
    assert "gradient buckets" not in table().parts
    assert table(devices=8).parts["gradient buckets"] == WEIGHTS


def test_sharded_parts_are_an_eighth(table):
    whole, parts = table(), table(FSDP, devices=8).parts
    assert parts["weights"] == WEIGHTS / 8 + BUFFERS
    assert parts["gradients"] == WEIGHTS / 8
    assert parts["optimizer state"] == WEIGHTS / 4 + 4 * TENSORS
    assert parts["gathered weights"] == WEIGHTS / 2, "all of it in bfloat16, since there are two layers"
    assert whole.whole_weights == whole.parts["weights"]


def test_logits_grow_with_the_vocabulary_and_activations_with_the_window(table):
    small, words, window = table(), table("tokenizer.vocab_size=1200"), table("data.max_seq_len=128")
    assert words.parts["logits"] == 2 * small.parts["logits"]
    assert window.parts["logits"] == 2 * small.parts["logits"]
    assert window.parts["activations"] == pytest.approx(2 * small.parts["activations"], rel=0.05)


def test_eager_attention_keeps_a_matrix_of_scores(table):
    """Float32 weights of attention and their copy in bfloat16, of each of 4 heads and 2 layers."""
    long = "data.max_seq_len=512"
    extra = table(long, "model.attention=eager").parts["activations"] - table(long).parts["activations"]
    assert extra > 2 * 4 * 512 * 512 * (4 + 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("{fsdp: {sharding_strategy: HYBRID_SHARD}}", "fsdp.sharding_strategy is HYBRID_SHARD"),
        ("{fsdp: {activation_cpu_offload: true}}", "fsdp.activation_cpu_offload is true"),
        ("{fsdp2: {activation_cpu_offload: true}}", "fsdp2.activation_cpu_offload is true"),
    ],
)
def test_sharding_that_is_not_known_is_refused(table, options, message):
    with pytest.raises(RecipeError, match=message.replace(".", r"\.")):
        table(f"train.parallelism_config={options}", devices=8)


def test_a_batch_must_be_divisible(table):
    with pytest.raises(RecipeError, match=r"train\.global_batch_size is 8; it must be a multiple of the 3"):
        table(devices=3)


def test_what_is_not_counted_is_said(table):
    ema = lines(table("algorithms.ema={half_life: 10ba}"))
    assert ema[-1] == "  not counted: what ema may hold, such as a copy of the weights"
    assert "not counted: CUDA's context" in ema[-2]
    assert not any("ema" in line for line in lines(table()))


def test_a_model_that_reads_values_has_a_table_without_activations(table, monkeypatch):
    def reads(model, batch, setting):
        return batch["input_ids"].max().item()

    monkeypatch.setattr("cadenza.recipe.memory.step.forward", reads)
    found = table()
    assert "activations" not in found.parts
    assert found.parts["weights"] == WEIGHTS + BUFFERS
    assert "activations and logits not estimated, and not in the total (DataDep" in lines(found)[-1]


def test_the_sum_is_compared_with_a_device(table):
    found = table()
    assert "  doesn't fit: a device has 0.0 GiB, 0.0 too few" in lines(found, 1e-4)
    assert lines(found, found.total / GIB / 0.95)[-2].startswith("  may not fit: 0.0 of 0.0 GiB are left")
    assert "  fits: 80.0 of 80.0 GiB are left for what isn't counted" in lines(found, 80)


def test_a_small_sum_is_said_in_mib(table):
    found = table()
    (total,) = (line for line in lines(found) if line.startswith("  total"))
    assert f"{found.total / 2**20:.3f} MiB, at {found.when}" in total
    found.parts["weights"] += GIB
    (total,) = (line for line in lines(found) if line.startswith("  total"))
    assert f"{found.total / GIB:.3f} GiB, at" in total


def test_a_loss_in_chunks_holds_no_logits_of_all_rows(table):
    """Stock code holds those of 64 tokens and 600 words several times, the chunks those of 4 tokens."""
    stock, chunked = (table(*pairs).parts["logits"] for pairs in ((), ("algorithms.chunked_loss={rows: 4}",)))
    assert stock >= 64 * 600 * 4
    assert chunked < 64 * 600
