"""Every head of the tested families, and heads of one's own: each document's output, or a refusal."""

import sys
from types import SimpleNamespace

import pytest
import torch
from families import CONFIGS, build
from torch import Tensor, nn
from transformers import BertConfig, PreTrainedModel, RobertaModel
from transformers.models.roberta.modeling_roberta import RobertaConfig, RobertaPreTrainedModel

from cadenza.algorithms import apply_anchor_attention, apply_sequence_packing
from cadenza.attention.modules import base_models
from cadenza.surgery import SurgeryError

LENGTHS = (5, 9, 4)
IDS = torch.randint(3, 90, (1, sum(LENGTHS)), generator=torch.Generator().manual_seed(0))
NUMBERS = torch.arange(1, 4).repeat_interleave(torch.tensor(LENGTHS))[None]
TINY = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
REFUSED = ("ForMultipleChoice", "DoubleHeadsModel")


def with_heads():
    """The models with a head of the families that techniques are tested on, and those without."""
    for family in CONFIGS:
        module = sys.modules[type(build(family)).__module__]
        for name, cls in sorted(vars(module).items()):
            own = (
                isinstance(cls, type)
                and issubclass(cls, PreTrainedModel)
                and cls.__module__ == module.__name__
            )
            if own and not name.endswith("PreTrainedModel"):
                yield family, cls


ALL = dict.fromkeys(with_heads())


def head(family, cls):
    return build(
        family, auto=SimpleNamespace(from_config=cls._from_config), is_decoder="Causal" in cls.__name__
    )


def outputs(model, **inputs):
    with torch.no_grad():
        return {name: x for name, x in model(**inputs).items() if isinstance(x, Tensor)}


def expected(stock):
    """The outputs of each document alone, by token or by document."""
    parts = [outputs(stock, input_ids=row) for row in IDS.split(LENGTHS, dim=1)]
    for name in parts[0]:
        by_token = all(part[name].shape[1] == length for part, length in zip(parts, LENGTHS, strict=True))
        yield name, torch.cat([part[name] for part in parts], dim=int(by_token))


def test_there_are_many_heads():
    assert len(ALL) > 50
    kinds = {cls.__name__.partition("For")[2] for _, cls in ALL}
    assert kinds >= {"SequenceClassification", "NextSentencePrediction", "PreTraining", "MultipleChoice"}


@pytest.mark.parametrize(("family", "cls"), ALL, ids=[cls.__name__ for _, cls in ALL])
def test_a_head_makes_of_each_document_what_it_makes_of_it_alone(family, cls):
    model, stock = head(family, cls), head(family, cls)
    if cls.__name__.endswith(REFUSED):
        with pytest.raises(SurgeryError, match=cls.__name__):
            apply_sequence_packing(model)
        return
    apply_sequence_packing(model)
    found = outputs(model, input_ids=IDS, document_ids=NUMBERS)
    for name, own in expected(stock):
        assert found[name].shape == own.shape
        assert (found[name] - own).abs().max() < 1e-5


class FirstToken(RobertaPreTrainedModel):
    """A head of one's own that makes one output of a row."""

    def __init__(self, config):
        super().__init__(config)
        self.roberta = RobertaModel(config, add_pooling_layer=False)
        self.post_init()

    def forward(self, input_ids=None, attention_mask=None, **kwargs):
        hidden = self.roberta(input_ids, attention_mask=attention_mask, **kwargs)[0]
        return {"logits": self.read(hidden)}

    def read(self, hidden):
        return hidden[:, 0]


class ByToken(FirstToken):
    def read(self, hidden):
        return hidden.tanh()


class FirstTokenForSequenceClassification(FirstToken):
    """The same, named as one that makes one output of a row."""


class Neighbours(FirstToken):
    def read(self, hidden):
        return hidden + hidden.roll(1, dims=1)


def own(cls):
    torch.manual_seed(0)
    return cls(RobertaConfig(vocab_size=90, pad_token_id=0, **TINY)).eval()


@pytest.mark.parametrize("cls", [ByToken, FirstTokenForSequenceClassification])
def test_a_head_of_one_s_own_that_follows(cls):
    model, stock = own(cls), own(cls)
    apply_sequence_packing(model)
    found = outputs(model, input_ids=IDS, document_ids=NUMBERS)
    [(_, logits)] = expected(stock)
    assert found["logits"].shape == logits.shape
    assert (found["logits"] - logits).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("cls", "why"),
    [
        (FirstToken, "FirstToken: its head makes logits of a row, whatever documents are in it"),
        (Neighbours, "Neighbours: logits of packed documents aren't what each of them gets alone"),
    ],
)
def test_a_head_of_one_s_own_that_does_not_follow_is_refused(cls, why):
    model = own(cls)
    with pytest.raises(SurgeryError, match=f"{why}.*; prove=False applies it all the same"):
        apply_sequence_packing(model)
    assert type(model) is cls
    assert model.config._attn_implementation == "sdpa"
    assert len(apply_sequence_packing(model, prove=False)) > 0


def test_a_part_of_one_s_own_in_a_stock_head_is_proved():
    class Shifted(nn.Linear):
        def forward(self, hidden):
            return super().forward(hidden).roll(1, dims=1)

    from transformers import BertForTokenClassification

    model = BertForTokenClassification(BertConfig(vocab_size=90, **TINY)).eval()
    model.classifier = Shifted(16, 2)
    with pytest.raises(SurgeryError, match="logits of packed documents aren't"):
        apply_sequence_packing(model)


def test_nothing_is_proved_on_meta():
    with torch.device("meta"):
        model = own(FirstToken)
    with pytest.raises(SurgeryError, match="FirstToken is of no tested family, and nothing can be proved"):
        apply_sequence_packing(model)


def test_an_anchor_needs_heads_by_token():
    from transformers import GPT2DoubleHeadsModel

    model = head("gpt2", GPT2DoubleHeadsModel)
    with pytest.raises(SurgeryError, match="GPT2DoubleHeadsModel: its head makes mc_logits of a row"):
        apply_anchor_attention(model)
    assert base_models(model)[0].config._attn_implementation == "sdpa"
