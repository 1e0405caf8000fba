"""Unpadding and packing: each document as if it stood alone, in stock shapes; what doesn't fit is refused."""

import copy

import pytest
import torch
from families import CONFIGS, batch, build
from reference import alone, documents, packed, padded, relative, together
from transformers import BertConfig, BertForSequenceClassification, BertModel

from cadenza.algorithms import (
    apply_alibi,
    apply_flash_attention,
    apply_low_precision_norm,
    apply_sequence_packing,
    apply_unpadding,
)
from cadenza.attention import open_seam
from cadenza.surgery import SurgeryError

LENGTHS = (13, 1, 2, 7, 7, 7, 31, 5)
every_family = pytest.mark.parametrize("family", CONFIGS)
APPLY = {
    "unpadding": (apply_unpadding,),
    "flash_attention": (apply_flash_attention,),
    "both": (apply_flash_attention, apply_unpadding),
    "alibi": (apply_alibi, apply_unpadding),
}


def operated(family, names, dtype=torch.float64, **kwargs):
    model = build(family, **kwargs).to(dtype)
    for apply in names:
        apply(model)
    return model


@pytest.mark.slow
@every_family
@pytest.mark.parametrize("names", APPLY)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_no_leak_between_padded_rows(family, names, attention):
    """The stock model on each document alone is the reference; with ALiBi, ALiBi's."""
    model = operated(family, APPLY[names], attention=attention)
    stock = operated(family, APPLY[names][:-1] if names == "alibi" else (), attention=attention)
    docs = documents(LENGTHS)
    inputs = padded(docs, max(LENGTHS))
    ours = together(model, inputs, inputs["attention_mask"].bool())
    assert relative(ours, alone(stock, docs)) < 1e-11


@pytest.mark.slow
@every_family
@pytest.mark.parametrize("names", ["none", *APPLY])
def test_no_leak_between_packed_documents(family, names):
    chosen = APPLY.get(names, ())
    model = operated(family, [apply_sequence_packing, *chosen])
    stock = operated(family, chosen[:-1] if names == "alibi" else ())
    docs = documents(LENGTHS)
    inputs = packed(docs, 32)
    assert len(inputs["input_ids"]) == 4
    ours = together(model, inputs, inputs["document_ids"] > 0)
    assert relative(ours, alone(stock, docs)) < 1e-11


@every_family
def test_float32(family):
    """The same sums in another order: a relative error of a few roundings of 6e-8."""
    model = operated(family, [apply_sequence_packing, apply_unpadding], torch.float32)
    docs = documents(LENGTHS)
    theirs = alone(operated(family, (), torch.float32), docs)
    inputs = packed(docs, 32)
    assert relative(together(model, inputs, inputs["document_ids"] > 0), theirs) < 1e-6
    inputs = padded(docs, 31)
    assert relative(together(model, inputs, inputs["attention_mask"].bool()), theirs) < 1e-6


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_changing_a_document_changes_no_other(family):
    model = operated(family, [apply_sequence_packing, apply_unpadding], torch.float32)
    docs = documents((5, 9, 4))
    inputs = packed(docs, 18)
    before = model(**inputs).logits
    inputs["input_ids"][0, 5:14] = 3
    after = model(**inputs).logits
    assert torch.equal(before[0, :5], after[0, :5])
    assert torch.equal(before[0, 14:], after[0, 14:])
    assert not torch.equal(before[0, 5:14], after[0, 5:14])


def test_stock_leaks():
    """The control: without the technique, rows of several documents are one."""
    docs = documents((5, 9, 4))
    model = operated("bert", ())
    inputs = packed(docs, 18)
    positions = torch.cat([torch.arange(n) for n in (5, 9, 4)])[None]
    ids = inputs["input_ids"]
    ours = model(input_ids=ids, position_ids=positions).logits[0]
    assert (ours - alone(operated("bert", ()), docs)[0]).abs().max() > 1e-3


@every_family
@pytest.mark.parametrize("padding", [None, "right", "left"])
def test_what_callers_see_is_stock(family, padding):
    model, stock = operated(family, [apply_unpadding]), operated(family, ())
    inputs = batch(family, padding=padding)
    if padding == "left":  # nothing is predicted from padding
        inputs["labels"][:, 1:].masked_fill_(inputs["attention_mask"][:, :-1] == 0, -100)
    ours, theirs = (m(**inputs, output_hidden_states=True) for m in (model, stock))
    real = inputs["attention_mask"].bool()
    assert ours.logits.shape == theirs.logits.shape
    assert abs(ours.loss - theirs.loss) < 1e-12
    assert (ours.logits - theirs.logits)[real].abs().max() < 1e-12
    assert len(ours.hidden_states) == len(theirs.hidden_states)
    for a, b in zip(ours.hidden_states, theirs.hidden_states, strict=True):
        assert a.shape == b.shape
        assert (a - b)[real].abs().max() < 1e-12
        assert not a[~real].any()


@every_family
def test_no_mask_means_no_padding(family):
    model, stock = operated(family, [apply_unpadding]), operated(family, ())
    ids = batch(family, padding=None)["input_ids"]
    assert (model(input_ids=ids).logits - stock(input_ids=ids).logits).abs().max() < 1e-12


@every_family
def test_inputs_embeds_and_given_positions(family):
    model, stock = operated(family, [apply_unpadding]), operated(family, ())
    inputs = batch(family)
    real = inputs["attention_mask"].bool()
    generator = torch.Generator().manual_seed(0)
    width = stock.get_input_embeddings().weight.shape[1]
    embeds = torch.randn(3, 13, width, dtype=torch.float64, generator=generator)
    given = {"inputs_embeds": embeds, "attention_mask": inputs["attention_mask"]}
    assert (model(**given).logits - stock(**given).logits)[real].abs().max() < 1e-12
    given = {**inputs, "position_ids": torch.arange(3, 16)[None]}
    assert (model(**given).logits - stock(**given).logits)[real].abs().max() < 1e-12


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_rows_of_padding_and_of_one_token(family):
    model, stock = operated(family, [apply_unpadding]), operated(family, ())
    ids = batch(family, padding=None)["input_ids"]
    mask = torch.zeros_like(ids)
    mask[0, :13], mask[1, :1] = 1, 1
    ours = model(input_ids=ids, attention_mask=mask).logits
    assert (ours - stock(input_ids=ids, attention_mask=mask).logits)[mask.bool()].abs().max() < 1e-12
    assert ours.isfinite().all()


def small(cls, **kwargs):
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    torch.manual_seed(0)
    return cls(BertConfig(vocab_size=90, **sizes, **kwargs)).double().eval()


def test_segments_and_the_pooled_output():
    stock = small(BertModel)
    model = copy.deepcopy(stock)
    apply_unpadding(model)
    inputs = batch("bert")
    given = {"input_ids": inputs["input_ids"], "attention_mask": inputs["attention_mask"]}
    given["token_type_ids"] = (torch.arange(13) > 4).long().expand(3, -1)
    ours, theirs = model(**given), stock(**given)
    real = given["attention_mask"].bool()
    assert (ours.pooler_output - theirs.pooler_output).abs().max() < 1e-12
    assert (ours.last_hidden_state - theirs.last_hidden_state)[real].abs().max() < 1e-12
    tuples = model(**given, return_dict=False)
    assert isinstance(tuples, tuple)
    assert torch.equal(tuples[1], ours.pooler_output)


def test_a_classifier_on_top():
    stock = small(BertForSequenceClassification, num_labels=3)
    model = copy.deepcopy(stock)
    apply_unpadding(model)
    inputs = {**batch("bert"), "labels": torch.tensor([0, 2, 1])}
    ours, theirs = model(**inputs), stock(**inputs)
    ours.loss.backward()
    theirs.loss.backward()
    assert abs(ours.loss - theirs.loss) < 1e-12
    for a, b in zip(model.parameters(), stock.parameters(), strict=True):
        assert (a.grad - b.grad).abs().max() < 1e-12


@pytest.mark.parametrize("family", ["bert", "modernbert", "llama", "gpt2"])
def test_gradient_checkpointing_keeps_documents_apart(family):
    model = operated(family, [apply_unpadding, apply_sequence_packing])
    inputs = packed(documents(LENGTHS), 32)
    real = inputs["document_ids"] > 0
    expected = together(model, inputs, real)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.0
    assert relative(together(model, inputs, real), expected) < 1e-11


def test_bfloat16_norms_and_unpadding_together():
    """Each rounding of bfloat16 is 2^-9; logits of magnitude 1 behind two layers stay within a few."""
    model = operated("bert", [apply_unpadding, apply_low_precision_norm], torch.float32)
    stock = operated("bert", [apply_low_precision_norm], torch.float32)
    inputs = batch("bert")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours, theirs = model(**inputs), stock(**inputs)
    real = inputs["attention_mask"].bool()
    scale = float(theirs.logits.abs().max())
    assert (ours.logits - theirs.logits)[real].abs().max() < 8 * 2**-9 * scale


def test_dropout_is_drawn_in_training():
    model = operated("bert", [apply_unpadding]).train()
    inputs = batch("bert")
    torch.manual_seed(0)
    first = model(**inputs).loss
    assert first != model(**inputs).loss
    torch.manual_seed(0)
    assert first == model(**inputs).loss


ids = torch.full((2, 6), 7)


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"document_ids": torch.ones(2, 5)}, r"document_ids has shape \(2, 5\) for tokens of \(2, 6\)"),
        (
            {"document_ids": torch.ones(2, 6), "attention_mask": torch.tensor([[1, 1, 1, 0, 0, 0]] * 2)},
            "disagree on which tokens are padding",
        ),
        ({"document_ids": torch.zeros(2, 6)}, "must be 1, 2, ... for documents"),
        ({"document_ids": torch.tensor([[1, 2, 1, 2, 1, 1]] * 2)}, "another document"),
    ],
)
def test_what_does_not_fit_is_refused(inputs, said):
    model = operated("bert", [apply_unpadding, apply_sequence_packing])
    with pytest.raises(SurgeryError, match=said):
        model(input_ids=ids, **inputs)


def test_a_layer_that_loses_the_documents_fails():
    model = operated("bert", [apply_unpadding])
    attend = model.bert.encoder.layer[1].attention.self
    forward = attend.forward
    attend.forward = lambda *args, documents=None, **kwargs: forward(*args, **kwargs)
    with pytest.raises(SurgeryError, match="BertSelfAttention gets no documents"):
        model(input_ids=ids)


def test_the_open_seam_alone_changes_nothing():
    model = build("bert")
    list(open_seam(model))
    assert model(input_ids=ids).logits.equal(build("bert")(input_ids=ids).logits)
