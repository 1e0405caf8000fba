"""What the checks say of stock models: the table in docs/checks.md."""

from typing import Any

import pytest
import torch
import transformers
from families import CONFIGS, SIZES, build
from paths import ROOT
from transformers import PreTrainedModel

from cadenza.checks import CheckFailed, NotCheckable, check_documents, check_padding

EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
LINEAR = {f"linear_{name}_head_dim": 8 for name in ("key", "value")}
LINEAR |= {"linear_num_key_heads": 2, "linear_num_value_heads": 4}
GROUPED = {"num_key_value_heads": 2, "head_dim": 8}

# The names of a class and its config, and what is told the config besides the sizes.
OTHERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "deberta-v2": ("DebertaV2ForMaskedLM", "DebertaV2Config", {"relative_attention": True}),
    "opt": ("OPTForCausalLM", "OPTConfig", {"ffn_dim": 48, "word_embed_proj_dim": 32}),
    "bloom": ("BloomForCausalLM", "BloomConfig", {"n_layer": 2, "n_head": 4}),
    "t5 encoder": (
        "T5EncoderModel",
        "T5Config",
        {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4},
    ),
    "mamba": ("MambaForCausalLM", "MambaConfig", {"state_size": 8}),
    "lfm2": ("Lfm2ForCausalLM", "Lfm2Config", {**GROUPED, "layer_types": ["conv", "full_attention"]}),
    "qwen3-next": (
        "Qwen3NextForCausalLM",
        "Qwen3NextConfig",
        {
            **GROUPED,
            **LINEAR,
            **EXPERTS,
            "shared_expert_intermediate_size": 16,
            "layer_types": ["linear_attention", "full_attention"],
        },
    ),
    "gpt-oss": (
        "GptOssForCausalLM",
        "GptOssConfig",
        {**GROUPED, "num_local_experts": 4, "sliding_window": 6},
    ),
    "reformer": (
        "ReformerModelWithLMHead",
        "ReformerConfig",
        {
            "is_decoder": True,
            "axial_pos_shape": [4, 8],
            "axial_pos_embds_dim": [16, 16],
            "attention_head_size": 8,
        },
    ),
}


def stock(family: str, seed: int = 0) -> PreTrainedModel:
    """A small random model of `family`, in eval mode; a window of Mistral's is 6 tokens."""
    if family in CONFIGS:
        return build(family, seed=seed, **({"sliding_window": 6} if family == "mistral" else {}))
    name, config, own = OTHERS[family]
    torch.manual_seed(seed)
    return getattr(transformers, name)(getattr(transformers, config)(**{**SIZES, **own})).eval()


CAUSES = {
    "change in other documents' outputs": "leaks",
    "gradient by other documents' tokens": "leaks",
    "difference from the document alone": "another than alone",
    "change with the tokens that stand in the padding": "reads padding",
    "gradient of real tokens' outputs by padding": "reads padding",
    "difference from the row alone": "positions move",
}
WAYS = {
    "`position_ids`": lambda model: check_documents(model, "position_ids"),
    "4-D `attention_mask`": lambda model: check_documents(model, "attention_mask"),
    "right padding": lambda model: check_padding(model, sides="right"),
    "left padding": lambda model: check_padding(model, sides="left"),
}


def table():
    """The header of the table of families, and its rows."""
    lines = (ROOT / "docs/checks.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    first = next(number for number, row in enumerate(rows) if row[0] == "family")
    return rows[first][1:], rows[first + 1 :]


def verdict(check, model):
    try:
        check(model)
    except CheckFailed as failed:
        return CAUSES[failed.finding.what]
    except NotCheckable:
        return "not checkable"
    return "right"


@pytest.mark.parametrize(
    ("family", "told"),
    [
        pytest.param(row[0].lower().replace("gpt-2", "gpt2"), row[1:], id=row[0], marks=pytest.mark.slow)
        for row in table()[1]
    ],
)
def test_the_table_says_what_the_checks_say(family, told):
    model = stock(family)
    found = {name: verdict(check, model) for name, check in WAYS.items()}
    assert found == dict(zip(table()[0], told, strict=True))


@pytest.mark.slow
def test_a_backward_that_fails_is_told():
    """Reformer's own backward wants training mode."""
    with pytest.raises(
        NotCheckable, match="can't be differentiated by token: its backward fails: If you want"
    ):
        check_padding(stock("reformer"))
