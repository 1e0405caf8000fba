"""Padded rows: what depends on padding in stock models is caught, by its kind."""

import pytest
import torch
from families import POSITIONS, VOCABULARY, build
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    GPT2Config,
    GPT2ForSequenceClassification,
    OPTConfig,
    OPTForCausalLM,
)

from cadenza.algorithms import apply_unpadding
from cadenza.checks import CheckFailed, NotCheckable, check_padding
from cadenza.checks.padding import ALONE, CONTENT, GRADIENT

SMALL = {"vocab_size": 90, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
COUNTED = r"difference from the row alone .* \(left padding, .* Positions count the padding"


def opt():
    torch.manual_seed(0)
    sizes = {"word_embed_proj_dim": 32, "ffn_dim": 48, "max_position_embeddings": POSITIONS}
    return OPTForCausalLM(OPTConfig(**SMALL, **sizes))


def counted(ids, mask):
    """Position ids that count real tokens, as a decoder's generation makes them."""
    return {"input_ids": ids, "attention_mask": mask, "position_ids": (mask.cumsum(1) - 1).clamp(min=0)}


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "electra", "albert", "gpt2"])
def test_padding_on_the_right_is_nothing(family):
    found = check_padding(build(family), sides="right").findings
    assert found[CONTENT].difference == found[GRADIENT].difference == 0
    assert found[ALONE].difference <= found[ALONE].tolerance < 1e-4


@pytest.mark.parametrize("family", ["modernbert", "llama", "mistral", "qwen3"])
def test_rotary_positions_may_be_padded_on_either_side(family):
    check_padding(build(family))


@pytest.mark.parametrize("family", ["bert", "distilbert", "electra", "albert", "gpt2"])
def test_absolute_positions_move_with_padding_on_the_left(family):
    with pytest.raises(CheckFailed, match=COUNTED):
        check_padding(build(family))


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_position_ids_that_count_real_tokens_are_right(family):
    check_padding(build(family), counted)


def test_positions_of_opt_count_real_tokens():
    check_padding(opt())


def test_positions_of_roberta_follow_from_the_tokens_in_the_padding():
    """They count tokens that aren't the padding token, whatever the mask says."""
    with pytest.raises(CheckFailed, match=r"change with the tokens that stand in the padding .*left padding"):
        check_padding(build("roberta"), sides="left")


def test_a_mask_that_is_left_out_is_caught():
    with pytest.raises(CheckFailed, match="check_padding of BertForMaskedLM, right: change with the tokens"):
        check_padding(build("bert"), lambda ids, mask: {"input_ids": ids}, sides="right")


def test_a_mask_that_lets_a_little_through_is_caught_by_the_gradient():
    """Below the rounding of bfloat16."""
    model = build("bert").bfloat16()

    def weak(ids, mask):
        dense = (1 - mask[:, None, None, :].bfloat16()) * -8
        return {"input_ids": ids, "attention_mask": dense.expand(-1, 1, ids.shape[1], -1)}

    check_padding(model, weak, sides="right", gradients=False)
    with pytest.raises(CheckFailed, match=r"gradient of real tokens' outputs by padding is .* row 0, place"):
        check_padding(model, weak, sides="right")


def test_the_name_of_a_place_is_that_of_the_row_alone():
    with pytest.raises(CheckFailed) as caught:
        check_padding(build("gpt2"), sides="left", lengths=(5, 9), amounts=(0,))
    assert caught.value.finding.where.startswith("row 0, real token ")
    assert caught.value.finding.where.endswith("(left padding, 0 in the longest row)")


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_each_dtype(dtype):
    check_padding(build("llama").to(dtype))
    with pytest.raises(CheckFailed, match=COUNTED):
        check_padding(build("gpt2").to(dtype))


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_a_model_without_padding(family):
    """Unpadded, with positions that stock code counts from the row's start."""
    model = build(family)
    apply_unpadding(model)
    check_padding(model, sides="right")


def test_a_classifier_is_compared_by_rows():
    """It reads the first place, where left padding stands."""
    model = BertForSequenceClassification(BertConfig(intermediate_size=48, **SMALL))
    assert "passed" in str(check_padding(model, sides="right"))
    with pytest.raises(CheckFailed, match=r"change with the tokens .* at row \d \(left"):
        check_padding(model)


def test_a_base_model_is_compared_by_its_last_hidden_state():
    check_padding(BertModel(BertConfig(intermediate_size=48, **SMALL)), sides="right")


def test_the_result_prints_in_one_line():
    text = str(check_padding(build("bert"), sides="right"))
    assert text.startswith("check_padding of BertForMaskedLM, right: passed; change with the tokens")
    assert "\n" not in text


def test_the_model_is_left_as_it_was():
    model = build("gpt2").train()
    before = torch.get_rng_state()
    with pytest.raises(CheckFailed):
        check_padding(model)
    assert model.training
    assert torch.equal(before, torch.get_rng_state())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_what_cannot_be_checked_is_told():
    without_padding = GPT2ForSequenceClassification(
        GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=1, n_head=2, pad_token_id=None)
    )
    with pytest.raises(NotCheckable, match=r"can't be called with input_ids \(3, 19\), attention_mask"):
        check_padding(without_padding)
    with pytest.raises(NotCheckable, match="choose 'right', 'left' or both"):
        check_padding(build("bert"), sides="middle")
    with pytest.raises(NotCheckable, match="no Hugging Face model"):
        check_padding(nn.Linear(2, 2))
