"""Pooled outputs: of the first token of each document; a pooler that reads more is refused."""

import pytest
import torch
from reference import documents, packed
from torch import nn
from transformers import (
    AlbertConfig,
    AlbertModel,
    BertConfig,
    BertModel,
    ChineseCLIPTextConfig,
    ChineseCLIPTextModel,
    CLIPTextConfig,
    CLIPTextModel,
    ErnieConfig,
    ErnieModel,
    RobertaConfig,
    RobertaModel,
)

from cadenza.algorithms import apply_sequence_packing, apply_unpadding
from cadenza.surgery import SurgeryError

TINY = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
POOLED = {
    "bert": (BertModel, BertConfig),
    "roberta": (RobertaModel, RobertaConfig),
    "albert": (AlbertModel, AlbertConfig),
    "ernie": (ErnieModel, ErnieConfig),
    "chinese_clip": (ChineseCLIPTextModel, ChineseCLIPTextConfig),
}


def base(kind):
    model_class, config_class = POOLED[kind]
    torch.manual_seed(0)
    return model_class(config_class(vocab_size=90, pad_token_id=0, **TINY)).double().eval()


@pytest.mark.parametrize("unpads", [False, True])
@pytest.mark.parametrize("kind", POOLED)
def test_the_pooled_output_is_of_each_document_s_first_token(kind, unpads):
    model, stock, docs = base(kind), base(kind), documents((5, 9, 4, 1))
    apply_sequence_packing(model)
    if unpads:
        apply_unpadding(model)
    found = model(**packed(docs, 15))
    own = torch.cat([stock(doc["input_ids"]).pooler_output for doc in docs])
    assert found.last_hidden_state.shape == (2, 15, 16)
    assert found.pooler_output.shape == own.shape
    assert (found.pooler_output - own).abs().max() < 1e-12


class LastToken(nn.Module):
    def forward(self, hidden):
        return hidden[:, -1]


class Mean(nn.Module):
    def forward(self, hidden):
        return hidden.mean(1)


@pytest.mark.parametrize("pooler", [LastToken, Mean])
@pytest.mark.parametrize("apply", [apply_sequence_packing, apply_unpadding])
def test_a_pooler_of_more_is_refused(apply, pooler):
    model = BertModel(BertConfig(vocab_size=90, **TINY))
    model.pooler = pooler()
    with pytest.raises(SurgeryError, match=f"{pooler.__name__} is not a pooler of the first token"):
        apply(model)
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("apply", [apply_sequence_packing, apply_unpadding])
def test_a_pooled_output_without_a_pooler_is_refused(apply):
    """CLIP reads it at the end of the text."""
    model = CLIPTextModel(CLIPTextConfig(vocab_size=90, eos_token_id=89, projection_dim=16, **TINY))
    with pytest.raises(SurgeryError, match="pooler_output of CLIPTextModel comes from no pooler"):
        apply(model)


def test_a_look_at_a_pooler_leaves_it_as_it_was():
    model = ErnieModel(ErnieConfig(vocab_size=90, **TINY)).train()
    state = torch.get_rng_state()
    apply_unpadding(model)
    assert model.pooler.training
    assert torch.equal(torch.get_rng_state(), state)
