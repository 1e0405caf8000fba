"""Norms of transformers run in low precision if they compute what torch's LayerNorm or RMSNorm does."""

import importlib

import pytest
import torch
from families import build
from torch import nn
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
)

from cadenza.algorithms import apply_low_precision_norm
from cadenza.surgery import Conflict, Mixin, NoEffect, Stage, mix

ALIKE = [  # family and class
    "mixtral.MixtralRMSNorm",
    "qwen2_moe.Qwen2MoeRMSNorm",
    "qwen3_moe.Qwen3MoeRMSNorm",
    "olmo2.Olmo2RMSNorm",
    "olmoe.OlmoeRMSNorm",
    "granite.GraniteRMSNorm",
    "smollm3.SmolLM3RMSNorm",
    "phi3.Phi3RMSNorm",
    "glm.GlmRMSNorm",
    "glm4.Glm4RMSNorm",
    "eurobert.EuroBertRMSNorm",
    "helium.HeliumRMSNorm",
    "seed_oss.SeedOssRMSNorm",
    "ernie4_5.Ernie4_5RMSNorm",
    "arcee.ArceeRMSNorm",
    "t5.T5LayerNorm",
    "llama4.Llama4TextRMSNorm",
    "gpt_oss.GptOssRMSNorm",
    "cohere.CohereLayerNorm",
    "deberta.DebertaLayerNorm",
    "convnext.ConvNextLayerNorm",
]
OTHER = {
    "gemma.GemmaRMSNorm": "computes another function",
    "gemma2.Gemma2RMSNorm": "computes another function",
    "qwen3_next.Qwen3NextRMSNorm": "computes another function",
    "nemotron.NemotronLayerNorm1P": "computes another function",
    "qwen3_next.Qwen3NextRMSNormGated": "takes more than one input",
    "squeezebert.SqueezeBertLayerNorm": "fails on a random input",
    "mobilebert.NoNorm": "has other parameters",
}


def made(name, size=16):
    """A norm with random parameters."""
    family, cls = name.split(".")
    module = importlib.import_module(f"transformers.models.{family}.modeling_{family}")
    norm = getattr(module, cls)(size)
    generator = torch.Generator().manual_seed(0)
    for parameter in norm.parameters():
        nn.init.normal_(parameter, mean=1.0, std=0.5, generator=generator)
    return norm


@pytest.mark.parametrize("name", ALIKE)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_norm_like_torchs_computes_the_same_in_low_precision(name, dtype):
    norm = made(name)
    x = 3 * torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(1)).to(dtype)
    plain, exact = norm(x.float()), norm(x.double().float()).double()
    model, state = nn.Sequential(norm), torch.get_rng_state()
    assert len(apply_low_precision_norm(model)) == 1
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(model(x.float()), plain), "stock without autocast"
    with torch.autocast("cpu", dtype=dtype):
        low = model(x)
    assert low.dtype == dtype
    # Parameters and result are each rounded once: a few units in the last place of values up to 8.
    assert (low.double() - exact).abs().max() < 2 * 8 * torch.finfo(dtype).eps


@pytest.mark.parametrize("name", OTHER)
def test_a_norm_that_does_more_is_left_alone_and_named(name):
    model = nn.ModuleDict({"odd": made(name), "plain": nn.LayerNorm(16)})
    stock = type(model["odd"])
    report = apply_low_precision_norm(model)
    assert [change.path for change in report.changes] == ["plain"]
    assert type(model["odd"]) is stock
    assert OTHER[name] in report.skipped["odd"]
    assert stock.__name__ in report.skipped["odd"]


@pytest.mark.parametrize("name", ["mixtral.MixtralRMSNorm", "cohere.CohereLayerNorm"])
def test_eps_is_the_norms_own(name):
    norm = made(name)
    norm.variance_epsilon = 0.5
    x = 0.1 * torch.randn(4, 16, generator=torch.Generator().manual_seed(1)).bfloat16()
    exact = norm(x.float())
    model = nn.Sequential(norm)
    apply_low_precision_norm(model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (model(x).float() - exact).abs().max() < 2**-7


def test_what_a_norm_computes_is_found_whatever_its_device_dtype_and_weight():
    for norm in (made("mixtral.MixtralRMSNorm").to("meta"), made("cohere.CohereLayerNorm").bfloat16()):
        nn.init.zeros_(norm.weight)
        assert len(apply_low_precision_norm(nn.Sequential(norm))) == 1
    with pytest.raises(NoEffect, match="left as it is: 0, GemmaRMSNorm computes another function"):
        apply_low_precision_norm(nn.Sequential(made("gemma.GemmaRMSNorm").to("meta")))


def test_no_hook_of_a_norm_runs_while_it_is_looked_at():
    norm, calls = made("mixtral.MixtralRMSNorm"), []
    norm.register_forward_hook(lambda *_: calls.append(1))
    apply_low_precision_norm(nn.Sequential(norm))
    assert not calls
    assert norm.training
    assert norm.weight.shape == (16,)


def test_a_users_norm_is_named():
    class MyRMSNorm(nn.RMSNorm):
        pass

    with pytest.raises(NoEffect, match="MyRMSNorm is a class of neither torch nor transformers"):
        apply_low_precision_norm(nn.Sequential(MyRMSNorm(4)))


SIZES = {"vocab_size": 90, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2}
SIZES |= {"num_attention_heads": 4, "num_key_value_heads": 2}


def test_every_norm_of_mixtral():
    model = MixtralForCausalLM(MixtralConfig(**SIZES, num_local_experts=2))
    report = apply_low_precision_norm(model)
    assert len(report) == 5
    assert not report.skipped


def test_no_norm_of_gemma():
    model = Gemma2ForCausalLM(Gemma2Config(**SIZES, head_dim=8))
    with pytest.raises(NoEffect, match=r"Gemma2RMSNorm computes another function.*and 8 more"):
        apply_low_precision_norm(model)


def test_norms_in_float64_stay_there_as_in_stock_code():
    model = nn.Sequential(nn.LayerNorm(8), nn.RMSNorm(8)).double()
    x = torch.randn(2, 8, dtype=torch.float64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        before = model(x)
        apply_low_precision_norm(model)
        assert model(x).dtype == torch.float64
        assert torch.equal(model(x), before)


def test_a_forward_on_meta():
    model = build("bert")
    apply_low_precision_norm(model)
    logits = model.to("meta")(input_ids=torch.zeros(2, 6, dtype=torch.long, device="meta")).logits
    assert (logits.device.type, logits.dtype) == ("meta", torch.float32)


class Shifted(Mixin, of="shift", stage=Stage.STRUCTURE):
    def forward(self, x):
        return super().forward(x) + 1


def test_another_mixins_forward_is_not_hidden_under_autocast():
    norm = nn.LayerNorm(4)
    mix(norm, Shifted)
    with pytest.raises(Conflict, match="low_precision_norm and shift both replace what it computes"):
        apply_low_precision_norm(nn.Sequential(norm))
    assert type(norm)._get_name(norm) == "ShiftedLayerNorm"
