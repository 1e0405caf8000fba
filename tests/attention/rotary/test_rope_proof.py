"""What the application of bf16_safe_rope proves, what it leaves alone, and what a call then needs."""

import copy
import pickle

import pytest
import torch
from families import batch, build
from torch import distributed
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from transformers import LlamaConfig, LlamaForSequenceClassification
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from cadenza.algorithms import apply_bf16_safe_rope
from cadenza.algorithms.long_context import bf16_safe_rope
from cadenza.surgery import SurgeryError

IDS = batch("llama", padding=None)["input_ids"]


def off_by(factor, monkeypatch):
    """Make the frequencies of an operated model wrong by `factor`."""
    right = bf16_safe_rope.by_layer_type
    wrong = {None: (tuple(factor * f for f in right(build("llama").model.rotary_emb)[None][0]), 1.0)}
    monkeypatch.setattr(bf16_safe_rope, "by_layer_type", lambda _: wrong)


def test_a_difference_is_refused_and_undone(monkeypatch):
    off_by(1.1, monkeypatch)
    model = build("llama")
    for parameter in model.parameters():
        parameter.data.mul_(5.0 if parameter.ndim > 1 else 1.0)
    stock = model(IDS).logits
    types = [type(module) for module in model.modules()]
    with pytest.raises(SurgeryError, match=r"changes the last hidden state by .* more than rounding"):
        apply_bf16_safe_rope(model)
    assert [type(module) for module in model.modules()] == types
    assert torch.equal(model(IDS).logits, stock)


def test_a_difference_of_rounding_is_none(monkeypatch):
    off_by(1 + 1e-7, monkeypatch)
    assert len(apply_bf16_safe_rope(build("llama"))) == 3


@pytest.mark.parametrize("kind", ["default", "dynamic"])
@pytest.mark.parametrize("training", [False, True])
def test_modes_buffers_and_random_states_are_left_alone(kind, training):
    rope = {"rope_type": kind, "rope_theta": 500.0, "factor": 4.0}
    model = build("llama", max_position_embeddings=16, rope_parameters=rope, attention_dropout=0.5)
    model(batch("llama", length=30)["input_ids"])  # frequencies of a dynamic type follow the length
    model.bfloat16().train(training).model.layers[0].train(not training)
    modes = [module.training for module in model.modules()]
    buffers = {name: (buffer, buffer.clone()) for name, buffer in model.named_buffers()}
    state = torch.get_rng_state()
    apply_bf16_safe_rope(model)
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    for name, buffer in model.named_buffers():
        assert buffer is buffers[name][0], name
        assert torch.equal(buffer, buffers[name][1]), name
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_config_is_read_once_and_not_validated_again():
    """A config may hold what its constructor would refuse."""
    config = LlamaConfig(vocab_size=99, hidden_size=32, num_hidden_layers=2, num_attention_heads=4)
    config.intermediate_size, config.pad_token_id = 37, 0
    config.problem_type, config.num_labels = "single_label_classification", 1
    model = LlamaForSequenceClassification(config).eval()
    stock = model(IDS).logits
    apply_bf16_safe_rope(model)
    assert (model(IDS).logits - stock).abs().max() < 1e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_frequencies_do_not_follow_the_default_dtype(dtype):
    """Transformers builds a model in bfloat16 under that default."""
    expected, found = build("llama"), build("llama")
    apply_bf16_safe_rope(expected)
    torch.set_default_dtype(dtype)
    try:
        apply_bf16_safe_rope(found)
    finally:
        torch.set_default_dtype(torch.float32)
    assert found.model.rotary_emb.exact_frequencies == expected.model.rotary_emb.exact_frequencies
    assert torch.equal(found(IDS).logits, expected(IDS).logits)


def test_copies_and_pickles_keep_the_frequencies():
    model = build("llama")
    apply_bf16_safe_rope(model)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(IDS).logits, model(IDS).logits)


@pytest.mark.parametrize("kind", ["default", "yarn", "dynamic", "longrope"])
def test_a_model_built_on_the_meta_device(kind):
    """As `from_pretrained` builds it; its weights come later."""
    rope = {"rope_type": kind, "rope_theta": 500.0, "factor": 4.0, "original_max_position_embeddings": 16}
    rope |= {"short_factor": [1.0] * 4, "long_factor": [2.0] * 4} if kind == "longrope" else {}
    real = build("llama", max_position_embeddings=64, rope_parameters=rope)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(copy.deepcopy(real.config)).eval()
        apply_bf16_safe_rope(model)
    model.to_empty(device="cpu").load_state_dict(real.state_dict())
    ids = batch("llama", length=29, padding=None)["input_ids"]
    expected = real(ids).logits
    assert (model(ids).logits - expected).abs().max() < 1e-5 * expected.abs().max()


class Logits(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, ids):
        return self.model(input_ids=ids).logits


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_export_with_dynamic_shapes(family):
    model = build(family)
    apply_bf16_safe_rope(model)
    auto = torch.export.Dim.AUTO
    program = torch.export.export(Logits(model), (IDS,), strict=False, dynamic_shapes=({0: auto, 1: auto},))
    other = batch(family, rows=2, length=21, padding=None)["input_ids"]
    assert (program.module()(other) - model(other).logits).abs().max() < 1e-5


def test_several_positions_a_token_are_refused():
    model = build("llama")
    apply_bf16_safe_rope(model)
    for positions in (torch.arange(13).expand(3, 1, 13), torch.arange(13.0)[None]):
        with pytest.raises(SurgeryError, match="one integer position a token"):
            model(IDS, position_ids=positions)


@pytest.fixture
def mesh():
    """One process, which needs no port; a Trainer in an earlier test has left a group of the same kind."""
    if made := not distributed.is_initialized():
        distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield distributed.init_device_mesh("cpu", (1,))
    if made:
        distributed.destroy_process_group()


@pytest.mark.parametrize("exact", [False, True])
def test_sharding_casts_stock_tables_but_not_ours(exact, mesh):
    """FSDP2 casts tensors among the arguments of a layer."""
    model, seen = build("llama"), []
    if exact:
        apply_bf16_safe_rope(model)
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16)
    for module in (*model.model.layers, model):
        fully_shard(module, mesh=mesh, mp_policy=policy)
    attention = model.model.layers[0].self_attn
    attention.register_forward_pre_hook(lambda *call: seen.append(call[-1]), with_kwargs=True)
    assert model(IDS).logits.dtype == torch.bfloat16
    tables = seen[0]["position_embeddings"]
    dtypes = {table.dtype for table in ((tables.cos, tables.sin) if exact else tables)}
    assert dtypes == {torch.float32 if exact else torch.bfloat16}
