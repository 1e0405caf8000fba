"""Calls with `document_ids` that a head can't compute by document are errors, in one line."""

import re

import pytest
import torch
from families import build, classifier
from reference import documents, packed
from transformers import AutoModelForMultipleChoice, AutoModelForQuestionAnswering

from cadenza.algorithms import apply_anchor_attention, apply_sequence_packing
from cadenza.surgery import SurgeryError

INPUTS = packed(documents((5, 9, 4)), 20)


def refused(model, why, **given):
    with pytest.raises(SurgeryError, match=re.escape(why)) as caught:
        model(**{**INPUTS, **given})
    assert "\n" not in str(caught.value)


def packs(family, **options):
    model = classifier(family, **options)
    apply_sequence_packing(model)
    return model


def test_labels_are_of_documents():
    for count in (1, 4):
        refused(packs("bert"), f"labels are {count}, for 3 documents", labels=torch.zeros(count).long())


def test_ids_have_the_shape_of_the_tokens():
    refused(
        packs("bert"),
        "document_ids has shape (1, 19) for tokens of (1, 20)",
        document_ids=INPUTS["document_ids"][:, :19],
    )
    refused(packs("bert"), "document_ids has shape (20,)", document_ids=INPUTS["document_ids"][0])
    refused(packs("bert"), "attention_mask and document_ids disagree", attention_mask=torch.ones(1, 20))


def test_a_value_of_each_token_is_known_or_refused():
    refused(packs("bert"), "kinds isn't known to be a value of each token", kinds=torch.zeros(1, 20))


@pytest.mark.parametrize("option", [{"output_attentions": True}, {"use_cache": True}])
def test_what_is_not_computed_by_document(option):
    refused(packs("llama"), "document_ids: this call can't be computed by document, because it", **option)


def test_decoders_find_the_last_token_by_its_id():
    model = packs("llama")
    embeds = model.get_input_embeddings()(INPUTS["input_ids"])
    refused(
        model,
        "LlamaForSequenceClassification finds the last token by input_ids",
        input_ids=None,
        inputs_embeds=embeds,
    )


def test_tokens_are_given():
    refused(packs("bert"), "pass exactly one of input_ids and inputs_embeds", input_ids=None)


def test_anchors_divide_no_sequence():
    model, stock = classifier("llama"), classifier("llama")
    apply_anchor_attention(model)
    ids = INPUTS["input_ids"]
    assert torch.equal(model(ids).logits, stock(ids).logits)
    refused(model, "LlamaForSequenceClassification makes one output of a row", document_ids=ids * 0)


@pytest.mark.parametrize("family", ["bert", "modernbert", "llama"])
def test_spans_are_looked_for_in_rows(family):
    """Each token's logits are those of its document alone; the stock loss is over the row."""
    model, stock = (build(family, auto=AutoModelForQuestionAnswering) for _ in range(2))
    apply_sequence_packing(model)
    place = torch.tensor([2])
    refused(model, "looks for start_positions in the whole row", start_positions=place, end_positions=place)
    found = model(**INPUTS)
    own = stock(INPUTS["input_ids"][:, 5:14])
    assert (found.start_logits[:, 5:14] - own.start_logits).abs().max() < 1e-5
    assert (found.end_logits[:, 5:14] - own.end_logits).abs().max() < 1e-5
    row = stock(INPUTS["input_ids"], start_positions=place, end_positions=place).loss
    assert torch.equal(model(INPUTS["input_ids"], start_positions=place, end_positions=place).loss, row)


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "modernbert"])
def test_choices_share_no_rows(family):
    model = build(family, auto=AutoModelForMultipleChoice)
    before = {name: type(module) for name, module in model.named_modules()}
    with pytest.raises(SurgeryError, match=r"ForMultipleChoice .*; prove=False applies it all the same"):
        apply_sequence_packing(model)
    assert before == {name: type(module) for name, module in model.named_modules()}
