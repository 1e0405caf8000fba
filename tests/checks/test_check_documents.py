"""Packed documents: models that keep them apart pass, and leaks of stock models are caught."""

import pytest
import torch
from families import build
from torch import nn
from transformers import BertConfig, BertForSequenceClassification, T5Config, T5ForConditionalGeneration

from cadenza.algorithms import apply_sequence_packing, apply_unpadding
from cadenza.checks import CheckFailed, NotCheckable, check_documents
from cadenza.checks.calls import Subject
from cadenza.checks.documents import ALONE, CHANGED, GRADIENT
from cadenza.checks.packing import sees_ahead
from cadenza.models import composer_model
from cadenza.probes.sequences import positions


def nothing(ids, documents):
    """No word about documents."""
    return {"input_ids": ids}


def two_dimensional(ids, documents):
    """Restarting positions and a mask of ones, as a collator with padding returns them."""
    return {"input_ids": ids, "position_ids": positions(documents), "attention_mask": torch.ones_like(ids)}


def cached(ids, documents):
    """Restarting positions, and a cache, as a config asks for one by default."""
    return {"input_ids": ids, "position_ids": positions(documents), "use_cache": True}


@pytest.mark.parametrize("family", ["bert", "modernbert", "llama", "gpt2"])
def test_without_a_word_about_documents_stock_models_leak(family):
    with pytest.raises(CheckFailed, match="by nothing: change in other documents' outputs is"):
        check_documents(build(family), nothing)


@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_stock_encoders_leak_with_restarting_positions(family):
    with pytest.raises(CheckFailed, match="by position_ids: change in other documents' outputs is") as caught:
        check_documents(build(family), "position_ids")
    assert caught.value.finding.difference > 100 * caught.value.finding.tolerance


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen3", "gpt2"])
def test_stock_decoders_keep_documents_apart_by_restarting_positions(family):
    found = check_documents(build(family), "position_ids").findings
    assert found[CHANGED].difference == found[GRADIENT].difference == 0
    assert 0 < found[ALONE].tolerance < 1e-4


@pytest.mark.parametrize("by", [two_dimensional, cached])
def test_stock_decoders_leak_as_soon_as_there_is_a_mask_or_a_cache(by):
    with pytest.raises(CheckFailed, match="change in other documents' outputs"):
        check_documents(build("llama"), by)


def test_a_dense_mask_of_an_encoder_is_told_from_a_decoders_in_any_dtype():
    """By a gradient: in bfloat16 a later token may change less than rounding does."""
    for dtype in (torch.float32, torch.bfloat16):
        for family, ahead in (("bert", True), ("llama", False)):
            subject = Subject(build(family).to(dtype))
            assert sees_ahead(subject, subject.draw(0, 8)) == ahead


@pytest.mark.parametrize("family", ["bert", "distilbert", "llama", "gpt2"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_dense_mask_keeps_documents_apart(family, attention):
    check_documents(build(family, attention=attention), "attention_mask")


def test_positions_that_begin_elsewhere_are_caught():
    """RoBERTa's begin behind the padding token's number; restarting ones begin at 0."""
    model = build("roberta")
    with pytest.raises(CheckFailed, match=r"difference from the document alone .* counts positions"):
        check_documents(model, "attention_mask")


def test_a_window_that_a_dense_mask_replaces_is_caught():
    """ModernBERT's local layers see 4 tokens to each side; a mask of one's own is taken as it is."""
    with pytest.raises(CheckFailed, match=r"difference from the document alone .* limits what a token sees"):
        check_documents(build("modernbert"), "attention_mask")


@pytest.mark.parametrize("family", ["bert", "roberta", "modernbert"])
@pytest.mark.parametrize("unpadded", [False, True])
def test_document_ids_of_an_operated_encoder(family, unpadded):
    """The last row ends in padding."""
    model = build(family)
    apply_sequence_packing(model)
    if unpadded:
        apply_unpadding(model)
    check_documents(model, lengths=((9, 5, 7), (6, 12)))


def test_document_ids_that_nobody_reads_are_caught():
    with pytest.raises(CheckFailed, match="by document_ids: change in other documents' outputs"):
        check_documents(build("bert"))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_each_dtype(dtype):
    check_documents(build("llama").to(dtype), "position_ids")
    with pytest.raises(CheckFailed):
        check_documents(build("bert").to(dtype), "position_ids")


def test_a_leak_below_rounding_is_found_by_its_gradient():
    model = build("llama").bfloat16()
    layer = model.model.layers[0]
    stock = layer.forward
    layer.forward = lambda hidden, **kwargs: stock(hidden + 1e-3 * hidden.roll(1, dims=1), **kwargs)
    with pytest.raises(
        CheckFailed, match=r"gradient by other documents' tokens is .* \(allowed: 0\) at row 0"
    ):
        check_documents(model, "position_ids")


def test_composers_wrapper_is_looked_through():
    assert "LlamaForCausalLM" in str(check_documents(composer_model(build("llama")), "position_ids"))


def test_the_result_prints_in_one_line():
    text = str(check_documents(build("llama"), "position_ids"))
    assert text.startswith("check_documents of LlamaForCausalLM by position_ids: passed; change in other")
    assert "\n" not in text


def test_the_same_seed_gives_the_same_numbers():
    model = build("llama")
    one, same, other = (check_documents(model, "position_ids", seed=seed) for seed in (3, 3, 4))
    assert one == same
    assert one != other


def test_the_model_is_left_as_it_was():
    model = build("bert").train()
    model.bert.encoder.requires_grad_(False)
    before = [(p.requires_grad, p.grad) for p in model.parameters()], torch.get_rng_state().tolist()
    with pytest.raises(CheckFailed):
        check_documents(model)
    assert model.training
    assert before == ([(p.requires_grad, p.grad) for p in model.parameters()], torch.get_rng_state().tolist())
    assert not model.get_input_embeddings()._forward_hooks


def two_sequences():
    sizes = {"d_model": 16, "num_layers": 1, "num_heads": 2, "d_kv": 8, "d_ff": 16}
    return T5ForConditionalGeneration(T5Config(vocab_size=40, **sizes))


def classifier():
    return BertForSequenceClassification(BertConfig(vocab_size=40, hidden_size=16, num_attention_heads=2))


@pytest.mark.parametrize(
    ("make", "options", "words"),
    [
        (lambda: build("distilbert", max_position_embeddings=16), {}, "takes 16 positions, the rows have 21"),
        (lambda: nn.Linear(2, 2), {}, "Linear is no Hugging Face model"),
        (two_sequences, {}, "takes two sequences; check its encoder"),
        (classifier, {"by": nothing}, "no output by token; check its base model"),
        (lambda: torch.compile(build("bert")), {}, "compiled; check it before"),
        (lambda: build("bert"), {"by": "masks"}, "by='masks'; choose 'document_ids'"),
        (
            lambda: build("llama"),
            {"by": "position_ids", "lengths": ((4, 3), (5,))},
            "position_ids can't tell padding",
        ),
        (
            lambda: build("bert"),
            {"by": lambda ids, _: {"words": ids}},
            "called with words .2, 21.*: ValueError: You must",
        ),
    ],
)
def test_what_cannot_be_checked_is_told(make, options, words):
    with pytest.raises(NotCheckable, match=words):
        check_documents(make(), **options)


def test_a_model_on_the_meta_device_is_told():
    with torch.device("meta"):
        model = BertForSequenceClassification(BertConfig(num_hidden_layers=1))
    with pytest.raises(NotCheckable, match="on the meta device"):
        check_documents(model)


def test_a_model_that_draws_in_evaluation_mode_is_told():
    model = build("bert")
    model.bert.embeddings.dropout.forward = lambda x: nn.functional.dropout(x, 0.5, training=True)
    with pytest.raises(NotCheckable, match="something else when called again"):
        check_documents(model)
