"""Post-training quantization: what is taken, what is left and why; checkpoints; what trains on top."""

import copy

import pytest
import torch
from families import batch, build
from torch import nn

from cadenza.algorithms import apply_glu, apply_post_training_quantization, apply_vocab_padding
from cadenza.models import load, save
from cadenza.quantization.stored.formats import FORMATS
from cadenza.quantization.stored.quantized_linear import Quantized
from cadenza.surgery import Conflict, NoEffect, OrderError, SurgeryError

every_format = pytest.mark.parametrize("name", FORMATS)


def quantized(name="nf4", family="llama", seed=0, **options):
    model = build(family, seed=seed)
    apply_post_training_quantization(model, name, **options)
    return model


def layers(model):
    return {path for path, module in model.named_modules() if isinstance(module, Quantized)}


def weights(model):
    return {path: model.get_submodule(path).dequantized() for path in layers(model)}


@torch.no_grad()
def logits(model, family="llama"):
    inputs = batch(family, padding=None)
    return model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits


def test_heads_and_ties_are_left_and_listed():
    model = build("llama")
    report = apply_post_training_quantization(model, "nf4")
    assert len(report) == 14
    assert report.skipped == {"lm_head": "it is the output head"}
    assert "left as it is: lm_head, it is the output head" in str(report)
    assert "4.50 bits a weight, error 9." in str(report)
    assert "14 modules changed; their weights: 61,440 bytes, now 8,640; they are frozen, and " in str(report)
    others = sum(p.numel() for p in model.parameters())
    assert f"; they are frozen, and {others:,} other parameters still train\n" in str(report)
    tied = apply_post_training_quantization(build("llama", tie_word_embeddings=True), "nf4")
    assert tied.skipped == {"lm_head": "its weight is tied to another module's"}
    base = build("llama").model
    assert apply_post_training_quantization(base, "nf4").skipped == {}, "no head in there"


def test_only_and_except():
    assert layers(quantized(only=["*.mlp.*"], except_=["*.1.*"])) == {
        f"model.layers.0.mlp.{name}_proj" for name in ("gate", "up", "down")
    }
    assert "lm_head" in layers(quantized(only=["*"]))
    with pytest.raises(NoEffect, match="found nothing to change"):
        quantized(only=["*.mlp.*"], except_=["*"])


def test_a_tied_head_that_is_asked_for_is_untied(tmp_path):
    model = build("llama", tie_word_embeddings=True)
    head, embedding = model.lm_head, model.model.embed_tokens.weight
    report = apply_post_training_quantization(model, "nf4", only=["lm_head"], keep_original=True)
    expected = logits(model)
    save(model, tmp_path)
    assert torch.equal(logits(load(tmp_path).eval()), expected)
    assert model.model.embed_tokens.weight is embedding
    report.undo()
    assert head.weight is embedding
    assert model.config.tie_word_embeddings
    with pytest.raises(SurgeryError, match="build the model with tie_word_embeddings=False"):
        apply_post_training_quantization(build("bert"), "nf4", only=["cls.predictions.decoder"])


def test_what_reads_weights_itself_is_left():
    model = nn.Sequential(nn.TransformerEncoderLayer(8, 2, 16), nn.Linear(8, 8), nn.Linear(8, 2))
    report = apply_post_training_quantization(model, "nf4")
    assert layers(model) == {"1"}
    assert report.skipped["2"] == "it is the output head"
    assert report.skipped["0.linear1"] == "TransformerEncoderLayer reads its weight itself"
    assert report.skipped["0.self_attn.out_proj"] == "NonDynamicallyQuantizableLinear is not nn.Linear"


def test_gpt2_says_why_nothing_fits():
    with pytest.raises(NoEffect, match=r"transformer\.h\.0\.attn\.c_attn, Conv1D is not nn\.Linear.* more"):
        apply_post_training_quantization(build("gpt2"), "nf4")


def test_falcon():
    from transformers import FalconConfig, FalconForCausalLM

    sizes = {"vocab_size": 90, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4}
    model = FalconForCausalLM(FalconConfig(**sizes)).eval()
    before = logits(model)
    report = apply_post_training_quantization(model, "int8")
    assert len(report) == 4
    assert 0 < (logits(model) - before).abs().max() < 0.05 * before.abs().max()


def test_bad_input():
    with pytest.raises(SurgeryError, match=r"'nf5'; it must be nf4, nf4-dq"):
        quantized("nf5")
    with pytest.raises(SurgeryError, match=r"compute_dtype is 'bf16'; it must be float32, bfloat16"):
        quantized(compute_dtype="bf16")
    model = build("llama")
    model.model.layers[1].mlp.up_proj.weight.data[3, 3] = torch.inf
    before = set(model.state_dict())
    with pytest.raises(SurgeryError, match=r"model\.layers\.1\.mlp\.up_proj: its weight isn't finite"):
        apply_post_training_quantization(model, "nf4")
    assert set(model.state_dict()) == before
    model = quantized("nf4")
    with pytest.raises(Conflict, match="undo it before"):
        apply_post_training_quantization(model, "fp4")


def test_undo_needs_the_original():
    model = build("llama")
    report = apply_post_training_quantization(model, "nf4")
    with pytest.raises(SurgeryError, match="keep_original=True"):
        report.undo()
    assert len(layers(model)) == 14


def test_the_original_is_freed_unless_kept():
    import weakref

    for keep in (False, True):
        model = build("llama")
        weight = weakref.ref(model.model.layers[0].mlp.up_proj.weight)
        optimizer = torch.optim.SGD(model.parameters(), lr=1)
        report = apply_post_training_quantization(model, "nf4", keep_original=keep, optimizers=optimizer)
        assert (weight() is not None) == keep
        assert report


def test_structure_comes_before():
    for late in (apply_glu, apply_vocab_padding):
        model = quantized("nf4", "bert")
        before = logits(model, "bert")
        with pytest.raises(OrderError, match=r"PostTrainingQuantization.* is in place; apply .* before it"):
            late(model)
        assert torch.equal(before, logits(model, "bert"))


@every_format
@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("assign", [True, False])
def test_a_checkpoint_loads_exactly(name, strict, assign):
    model, other = quantized(name), quantized(name, seed=1)
    other.load_state_dict(copy.deepcopy(model.state_dict()), strict=strict, assign=assign)
    assert torch.equal(logits(model), logits(other))


def test_onto_meta(tmp_path):
    model = quantized("nf4-dq")
    with torch.device("meta"):
        other = quantized("nf4-dq")
    assert other.model.layers[0].mlp.up_proj.weight.is_meta
    assert other.model.layers[0].mlp.up_proj.weight_error is None
    other.load_state_dict(model.state_dict(), assign=True)
    other.model.rotary_emb = model.model.rotary_emb  # has no state to load
    assert torch.equal(logits(model), logits(other))


@every_format
@pytest.mark.parametrize("strict", [True, False])
def test_a_checkpoint_of_another_format_raises(name, strict):
    for other in {"stock", *FORMATS} - {name}:
        refuses(
            quantized(name), build("llama", seed=1) if other == "stock" else quantized(other, seed=1), strict
        )


def refuses(mine, model, strict):
    before = weights(mine)
    with pytest.raises(RuntimeError, match=r"q_proj is in .*; found .*q_proj\.weight \(torch"):
        mine.load_state_dict(model.state_dict(), strict=strict)
    assert all(torch.equal(before[path], weight) for path, weight in weights(mine).items())
    if not layers(model):
        with pytest.raises(RuntimeError, match="size mismatch"):
            model.load_state_dict(mine.state_dict(), strict=strict)


@every_format
def test_codes_without_their_statistics_raise(name):
    torch.manual_seed(0)
    mine, other = nn.Linear(64, 64), nn.Linear(64, 64)
    for linear in (mine, other):
        apply_post_training_quantization(linear, name, only=["*"])
    with pytest.raises(RuntimeError, match=r"is in .*, made of weight, "):
        mine.load_state_dict({"weight": other.weight}, strict=False)


@pytest.mark.xfail(strict=True, raises=AssertionError, reason="bitsandbytes issue 1946: stale absmax")
def test_the_library_alone_keeps_stale_statistics():
    import bitsandbytes as bnb

    torch.manual_seed(0)
    weights = [torch.randn(64, 64), 400 * torch.randn(64, 64)]
    mine, other = (bnb.nn.Linear4bit(64, 64, bias=False, quant_type="nf4") for _ in weights)
    for linear, weight in zip((mine, other), weights, strict=True):
        linear.weight = bnb.nn.Params4bit(weight, requires_grad=False, quant_type="nf4", module=linear)
        linear.to("cpu")
    mine.load_state_dict(other.state_dict(), strict=False)
    x = torch.randn(4, 64)
    assert torch.equal(mine(x), other(x))


@every_format
def test_saved_and_loaded(name, tmp_path):
    model = quantized(name)
    save(model, tmp_path)
    again = load(tmp_path).eval()
    assert layers(again) == layers(model)
    assert torch.equal(logits(model), logits(again))
    half = load(tmp_path, dtype=torch.bfloat16)
    path = "model.layers.0.mlp.up_proj"
    assert torch.equal(half.get_submodule(path).dequantized(), model.get_submodule(path).dequantized())


def test_no_optimizer_holds_codes():
    model = build("llama")
    optimizer = torch.optim.AdamW(model.parameters())
    apply_post_training_quantization(model, "nf4", optimizers=optimizer)
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in model.parameters()}
    assert all(p.is_floating_point() for p in model.parameters())
    late = torch.optim.AdamW(model.parameters())
    assert len(late.param_groups[0]["params"]) == len(list(model.parameters()))
    model(**batch("llama")).loss.backward()
    late.step()


def test_structure_is_undone_after():
    model = build("bert")
    glu = apply_glu(model)
    expected = logits(model, "bert")
    quantization = apply_post_training_quantization(model, "nf4", keep_original=True)
    with pytest.raises(OrderError, match=r"PostTrainingQuantization.* is in place; undo it before GLU"):
        glu.undo()
    quantization.undo()
    assert torch.equal(logits(model, "bert"), expected)
    glu.undo()
    assert torch.equal(logits(model, "bert"), logits(build("bert"), "bert"))
