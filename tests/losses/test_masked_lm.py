"""Which loss a masked LM computes: read from its code, and what stands in for it."""

from types import SimpleNamespace

import pytest
import torch
import transformers
from torch import nn
from transformers.loss.loss_utils import ForCausalLMLoss, ForMaskedLMLoss

from cadenza.losses.masked_lm import check_labels, is_cross_entropy, loss_name, loss_options
from cadenza.surgery import SurgeryError

FAMILIES = ("Bert", "Roberta", "XLMRoberta", "Electra", "DistilBert", "Albert", "ModernBert")


@pytest.mark.parametrize("family", FAMILIES)
def test_the_loss_of_each_family_is_found(family):
    assert loss_name(getattr(transformers, f"{family}ForMaskedLM")) is not None


def test_a_loss_of_another_kind_has_no_name():
    class Squared(nn.Module):
        def forward(self, x, labels):
            return (x - labels).square().mean()

    assert loss_name(Squared) is None
    assert not is_cross_entropy(Squared(), None, {})


def test_only_a_loss_function_gets_the_callers_options():
    options = {"num_items_in_batch": 3}
    assert loss_options("loss_function", options) == options
    assert loss_options("mlm_loss_fct", options) == loss_options("CrossEntropyLoss", options) == {}


LOSSES = {
    "stock": (nn.CrossEntropyLoss(), True),
    "smoothed": (nn.CrossEntropyLoss(label_smoothing=0.1), False),
    "summed": (nn.CrossEntropyLoss(reduction="sum"), False),
    "another label ignored": (nn.CrossEntropyLoss(ignore_index=0), False),
    "weighted": (nn.CrossEntropyLoss(weight=torch.ones(90)), False),
    "a subclass": (type("Mine", (nn.CrossEntropyLoss,), {})(), False),
    "a function": (torch.nn.functional.cross_entropy, False),
}


@pytest.mark.parametrize(("loss", "plain"), LOSSES.values(), ids=LOSSES)
def test_a_module_for_the_loss(loss, plain):
    assert is_cross_entropy(SimpleNamespace(mlm_loss_fct=loss), "mlm_loss_fct", {}) == plain


def test_a_loss_function_and_its_options():
    def plain(loss=ForMaskedLMLoss, selects=False, **options):
        return is_cross_entropy(
            SimpleNamespace(loss_function=loss, sparse_prediction=selects), "loss_function", options
        )

    assert plain()
    assert plain(num_items_in_batch=3, ignore_index=0, output_attentions=False)
    assert not plain(vocab_size=3)
    assert not plain(selects=True)
    assert not plain(loss=lambda logits, labels, **kwargs: logits.sum())
    with pytest.raises(
        SurgeryError, match="the model's loss is ForCausalLMLoss, which may read tokens without"
    ):
        plain(loss=ForCausalLMLoss)


def test_labels_that_are_no_match_for_the_tokens():
    tokens = torch.zeros(2, 6, dtype=torch.long)
    for labels in (tokens, tokens.flatten()):
        check_labels(labels, tokens)
        check_labels(labels, inputs_embeds=torch.zeros(2, 6, 4))
        check_labels(labels)
    with pytest.raises(SurgeryError, match=r"labels have shape \(2, 3\) for tokens of \(2, 6\)"):
        check_labels(tokens[:, :3], input_ids=tokens)
    with pytest.raises(SurgeryError, match=r"labels have shape \(2, 3\) for tokens of \(2, 6\)"):
        check_labels(tokens[:, :3], inputs_embeds=torch.zeros(2, 6, 4))
