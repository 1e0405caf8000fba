"""One call of a base model on the seam: positions, options, outputs, and what can't be passed."""

import warnings

import pytest
import torch
from families import batch, build
from reference import alone, documents, packed, relative, together
from transformers import (
    AlbertConfig,
    AlbertModel,
    BertConfig,
    BertModel,
    DynamicCache,
    RobertaConfig,
    RobertaModel,
    XLMRobertaConfig,
    XLMRobertaModel,
)

from cadenza.algorithms import (
    apply_alibi,
    apply_anchor_attention,
    apply_bf16_safe_rope,
    apply_flash_attention,
    apply_sequence_packing,
    apply_sparse_prediction,
    apply_unpadding,
)
from cadenza.surgery import SurgeryError

IDS = torch.full((2, 6), 7)
TINY = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
POOLED = {
    "bert": (BertModel, BertConfig),
    "roberta": (RobertaModel, RobertaConfig),
    "xlm-roberta": (XLMRobertaModel, XLMRobertaConfig),
    "albert": (AlbertModel, AlbertConfig),
}


def unpadded(family, **options):
    model = build(family, **options)
    apply_unpadding(model)
    return model


@pytest.mark.parametrize("kind", POOLED)
def test_the_pooled_output_is_of_each_row_s_first_token(kind):
    model_class, config_class = POOLED[kind]
    torch.manual_seed(0)
    model = model_class(config_class(vocab_size=90, pad_token_id=0, **TINY)).double().eval()
    inputs = batch("bert")
    inputs.pop("labels")
    expected = model(**inputs).pooler_output
    apply_unpadding(model)
    assert (model(**inputs).pooler_output - expected).abs().max() < 1e-12


def test_a_pooler_of_another_kind_is_refused():
    class LastToken(torch.nn.Module):
        def forward(self, hidden):
            return hidden[:, -1]

    model = BertModel(BertConfig(vocab_size=90, **TINY))
    model.pooler = LastToken()
    with pytest.raises(SurgeryError, match="LastToken is not a pooler of the first token"):
        apply_unpadding(model)
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("padding", [None, "right", "left"])
@pytest.mark.parametrize("embedded", [False, True])
def test_roberta_counts_behind_its_padding_id(padding, embedded):
    """In the published models it is 1, so the first position is 2."""
    model, stock = unpadded("roberta", pad_token_id=1), build("roberta", pad_token_id=1)
    inputs = batch("roberta", padding=padding)
    real = inputs["attention_mask"].bool()
    given = {"input_ids": inputs["input_ids"].masked_fill(~real, 1)}
    if embedded:
        given = {"inputs_embeds": stock.get_input_embeddings()(given["input_ids"])}
    ours, theirs = (m(**given, attention_mask=inputs["attention_mask"]).logits for m in (model, stock))
    assert (ours - theirs)[real].abs().max() < 1e-5


def test_roberta_counts_so_in_each_packed_document():
    docs = documents((5, 9, 4))
    model, stock = (build("roberta", pad_token_id=1).double() for _ in range(2))
    apply_sequence_packing(model)
    inputs = packed(docs, 20)
    ours = together(model, inputs, inputs["document_ids"] > 0)
    assert relative(ours, alone(stock, docs)) < 1e-11


def test_hidden_states_of_the_config_are_refused_with_labels_alone():
    model = build("bert")
    apply_sparse_prediction(model)
    model.config.output_hidden_states = True
    inputs = batch("bert")
    with pytest.raises(SurgeryError, match="output_hidden_states=True"):
        model(**inputs)
    del inputs["labels"]
    assert len(model(**inputs).hidden_states) == 3


def test_either_ids_or_embeddings():
    model = unpadded("bert")
    embeds = torch.zeros(2, 6, 32)
    for given in ({}, {"input_ids": IDS, "inputs_embeds": embeds}):
        with pytest.raises(SurgeryError, match="pass exactly one of input_ids and inputs_embeds"):
            model(**given)
    assert model(inputs_embeds=embeds).logits.shape == (2, 6, 90)


def test_a_config_may_ask_for_tuples():
    model = BertModel(BertConfig(vocab_size=90, **TINY)).eval()
    stock = model(IDS, return_dict=False)
    apply_unpadding(model)
    model.config.return_dict = False
    ours = model(IDS)
    assert isinstance(ours, tuple)
    assert [x.shape for x in ours] == [x.shape for x in stock]
    assert not isinstance(model(IDS, return_dict=True), tuple)


def test_a_missing_anchor_is_said_in_training_alone():
    model = build("llama")
    apply_anchor_attention(model, "intra_document")
    packing = build("llama").train()
    apply_sequence_packing(packing)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(IDS)
        packing(IDS)
        model.train()(IDS, document_ids=torch.ones_like(IDS))
    with pytest.warns(UserWarning, match="no document_ids, so each row is one document"):
        model(IDS)


@pytest.mark.parametrize("padding", [None, "right", "left"])
def test_labels_find_their_rows(padding):
    """The first token has a label, and the rest is uneven."""
    model, stock = unpadded("bert").double(), build("bert").double()
    apply_sparse_prediction(model)
    inputs = batch("bert", padding=padding)
    ids, real = inputs["input_ids"], inputs["attention_mask"].bool()
    inputs["labels"] = torch.where(real & (torch.arange(39).view(3, 13) % 3 == 0), ids, -100)
    assert inputs["labels"][0, 0] != -100
    theirs = stock(**inputs).logits[inputs["labels"] != -100]
    assert (model(**inputs).logits[0] - theirs).abs().max() < 1e-12


def test_labelled_rows_of_a_batch_without_documents_rotate_as_ever():
    model = build("llama")
    expected = model.model(IDS).last_hidden_state
    apply_bf16_safe_rope(model, per_document=True)
    assert (model.model(IDS, labelled=torch.tensor([0])).last_hidden_state - expected).abs().max() < 1e-5


@pytest.mark.parametrize("per_document", [False, True])
@pytest.mark.parametrize("apply", [None, apply_unpadding, apply_flash_attention, apply_sequence_packing])
def test_embeddings_are_rotated_as_ids_are(apply, per_document):
    model = build("llama")
    expected = model(IDS).logits
    apply_bf16_safe_rope(model, per_document)
    if apply:
        apply(model)
    embeds = model.get_input_embeddings()(IDS)
    assert (model(inputs_embeds=embeds).logits - expected).abs().max() < 1e-5


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_a_cache_says_where_positions_go_on(kind):
    """Rope types that scale by the longest position notice where it is taken for a first part."""
    factors = {"short_factor": [1.0, 1.1, 1.2, 1.3], "long_factor": [1.0, 2.0, 3.0, 4.0]}
    rope = {"rope_type": kind, "rope_theta": 500.0, "factor": 4.0, "original_max_position_embeddings": 8}
    rope |= factors if kind == "longrope" else {}
    model = build("llama", max_position_embeddings=8, rope_parameters=rope)
    apply_bf16_safe_rope(model)
    ids = batch("llama", padding=None)["input_ids"]
    outputs = []
    for given in ({}, {"position_ids": torch.arange(8, 13)[None]}, {"position_ids": torch.arange(5)[None]}):
        cache = DynamicCache(config=model.config)
        model(ids[:, :8], past_key_values=cache)
        outputs.append(model(ids[:, 8:], past_key_values=cache, **given).logits)
    assert torch.equal(outputs[0], outputs[1])
    assert (outputs[0] - outputs[2]).abs().max() > 1e-5, "the positions don't matter here"


def test_alibi_looks_up_no_position_of_embeddings_either():
    model = build("bert")
    apply_alibi(model)
    ids = batch("bert", length=50, padding=None)["input_ids"]
    embeds = model.get_input_embeddings()(ids)
    assert (model(inputs_embeds=embeds).logits - model(input_ids=ids).logits).abs().max() < 1e-6


def reset(model):
    apply_anchor_attention(model, reset_positions=True)


@pytest.mark.parametrize(
    ("family", "techniques"),
    [
        ("bert", [apply_unpadding]),
        ("bert", [apply_alibi]),
        ("bert", [apply_sequence_packing]),
        ("roberta", [apply_unpadding]),
        ("gpt2", [apply_unpadding]),
        ("gpt2", [apply_alibi]),
        ("llama", [apply_bf16_safe_rope]),
        ("llama", [apply_bf16_safe_rope, apply_unpadding]),
        ("llama", [apply_anchor_attention, apply_unpadding]),
        ("llama", [reset, apply_bf16_safe_rope]),
    ],
)
def test_everything_is_made_where_the_tokens_are(family, techniques):
    """On a device that computes with nothing but itself."""
    model = build(family)
    for apply in techniques:
        apply(model)
    model.to("meta").config.pad_token_id = None  # GPT-2 would look for it among the tokens
    packs = {apply_sequence_packing, apply_anchor_attention, reset} & set(techniques)
    documents = torch.tensor([[0, 1, 1, 1, 2, 2], [0, 3, 3, -1, -1, -1]]) + (family == "bert")
    given = {"document_ids": torch.where(documents < 1, -1, documents) if family == "bert" else documents}
    logits = model(IDS.to("meta"), **(given if packs else {})).logits
    assert (logits.shape, logits.device.type) == ((2, 6, 90), "meta")


def test_cached_keys_are_turned_where_they_are():
    model = build("llama").to("meta")
    apply_bf16_safe_rope(model)
    cache = DynamicCache(config=model.config)
    for _part in range(2):
        logits = model(IDS.to("meta"), past_key_values=cache).logits
    assert (logits.device.type, cache.get_seq_length()) == ("meta", 12)
