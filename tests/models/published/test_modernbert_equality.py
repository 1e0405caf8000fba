"""Stock BERT after five surgeries is ModernBERT: logits, loss and all gradients, in float64.

The reference is transformers' own ModernBERT. It rotates in float32 whatever the model's dtype, and its loss
rounds logits to float32, so here it gets a rotation in float64, and the loss is computed from its logits.
"""

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForMaskedLM, BertConfig, BertForMaskedLM, ModernBertConfig
from transformers.models.modernbert import modeling_modernbert

from cadenza.algorithms import (
    apply_flash_attention,
    apply_glu,
    apply_no_bias,
    apply_pre_norm,
    apply_rotary,
    apply_sequence_packing,
    apply_sliding_window,
    apply_sparse_prediction,
    apply_unpadding,
)

HIDDEN, INNER, LAYERS, WORDS, WINDOW = 48, 40, 5, 90, 4  # layers 0 and 3 are global
GLOBAL_THETA, LOCAL_THETA = 160_000.0, 10_000.0
TECHNIQUES = {
    "rotary": lambda model: apply_rotary(model, theta=GLOBAL_THETA, window_theta=LOCAL_THETA),
    "pre_norm": apply_pre_norm,
    "no_bias": apply_no_bias,
    "sliding_window": lambda model: apply_sliding_window(model, WINDOW, global_every=3),
}


@pytest.fixture
def exact(monkeypatch):
    """ModernBERT's rotation in float64 from its own float32 frequencies; the list grows by one a layer."""
    calls = []

    def rotate(query, key, cos, sin, unsqueeze_dim=1):
        calls.append(query.dtype)
        cos, sin = cos.unsqueeze(unsqueeze_dim), sin.unsqueeze(unsqueeze_dim)
        half = modeling_modernbert.rotate_half
        return query * cos + half(query) * sin, key * cos + half(key) * sin

    def tables(self, x, position_ids, layer_type):
        angles = position_ids[..., None].double() * getattr(self, f"{layer_type}_inv_freq").double()
        angles = torch.cat([angles, angles], -1)
        return angles.cos(), angles.sin()

    monkeypatch.setattr(modeling_modernbert, "apply_rotary_pos_emb", rotate)
    monkeypatch.setattr(modeling_modernbert.ModernBertRotaryEmbedding, "forward", tables)
    return calls


def modernbert(heads):
    """Transformers' ModernBERT with random weights, none of them near a special value."""
    config = ModernBertConfig(
        vocab_size=WORDS,
        hidden_size=HIDDEN,
        intermediate_size=INNER,
        num_hidden_layers=LAYERS,
        num_attention_heads=heads,
        local_attention=2 * WINDOW,
        rope_parameters={
            "full_attention": {"rope_type": "default", "rope_theta": GLOBAL_THETA},
            "sliding_attention": {"rope_type": "default", "rope_theta": LOCAL_THETA},
        },
        **{f"{name}_token_id": 0 for name in ("pad", "bos", "eos", "cls", "sep")},
    )
    return randomized(AutoModelForMaskedLM.from_config(config, attn_implementation="sdpa"))


def randomized(model):
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        centre = float(parameter.ndim == 1 and "bias" not in name)
        torch.nn.init.normal_(parameter, mean=centre, std=0.1 if parameter.ndim == 1 else 0.2)
    return model.double().eval()


def stock_bert(heads):
    config = BertConfig(
        vocab_size=WORDS,
        hidden_size=HIDDEN,
        intermediate_size=INNER,
        num_hidden_layers=LAYERS,
        num_attention_heads=heads,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        pad_token_id=0,
    )
    return randomized(BertForMaskedLM._from_config(config, attn_implementation="sdpa"))


def pairs(bert, modern):
    """(parameter of BERT, that of ModernBERT, rows of the latter), read before the norms move."""
    base, head, own = bert.bert, bert.cls.predictions, modern.model
    whole = slice(None)
    found = [
        (base.embeddings.word_embeddings.weight, own.embeddings.tok_embeddings.weight, whole),
        (base.embeddings.LayerNorm.weight, own.embeddings.norm.weight, whole),
        (head.transform.dense.weight, modern.head.dense.weight, whole),
        (head.transform.LayerNorm.weight, modern.head.norm.weight, whole),
        (head.decoder.bias, modern.decoder.bias, whole),
    ]
    behind = [*[layer.attn_norm for layer in own.layers[1:]], own.final_norm]
    for layer, theirs, norm in zip(base.encoder.layer, own.layers, behind, strict=True):
        attention = layer.attention
        for part, name in enumerate(("query", "key", "value")):
            rows = slice(part * HIDDEN, (part + 1) * HIDDEN)
            found.append((getattr(attention.self, name).weight, theirs.attn.Wqkv.weight, rows))
        up = layer.intermediate.dense.weight
        found += [
            (attention.output.dense.weight, theirs.attn.Wo.weight, whole),
            (attention.output.LayerNorm.weight, theirs.mlp_norm.weight, whole),
            (up, theirs.mlp.Wi.weight, slice(0, len(up))),  # the gate alone without `glu`
            (layer.output.dense.weight, theirs.mlp.Wo.weight, whole),
            (layer.output.LayerNorm.weight, norm.weight, whole),
        ]
    return found


def both(heads, without=None):
    """ModernBERT, BERT after the surgeries but one, with its weights, and their pairs of parameters."""
    modern, bert = modernbert(heads), stock_bert(heads)
    if without != "glu":
        apply_glu(bert)
    mapped = pairs(bert, modern)
    with torch.no_grad():
        for parameter, theirs, rows in mapped:
            parameter.copy_(theirs[rows])
    for name, apply in TECHNIQUES.items():
        if name != without:
            apply(bert)
    return modern, bert, mapped


def inputs(length, padding=None):
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, WORDS, (3, length), generator=generator)
    mask = torch.ones_like(ids)
    for row in range(3 if padding else 0):
        pad = slice(length - 3 * row, length) if padding == "right" else slice(0, 3 * row)
        mask[row, pad] = 0
    chosen = (torch.rand(ids.shape, generator=generator) < 0.4) & mask.bool()
    return ids, mask, ids.masked_fill(~chosen, -100)


def exact_loss(logits, labels):
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten())


def assert_near(found, expected, name="logits"):
    """To 1e-10 of the largest expected value."""
    atol = 1e-10 * expected.abs().max().item()
    torch.testing.assert_close(found, expected, rtol=0, atol=atol, msg=lambda m: f"{name}: {m}")


def assert_same_gradients(modern, bert, mapped):
    """Of every parameter on either side."""
    assert {id(p) for p in bert.parameters()} == {id(ours) for ours, _, _ in mapped}
    assert {id(p) for p in modern.parameters()} == {id(theirs) for _, theirs, _ in mapped}
    names = {id(p): name for name, p in modern.named_parameters()}
    for ours, theirs, rows in mapped:
        assert theirs.grad.abs().max() > 0
        assert_near(ours.grad, theirs.grad[rows], names[id(theirs)])


@pytest.mark.parametrize("heads", [2, 4, 12])
@pytest.mark.parametrize("padding", [None, "right", "left"])
@pytest.mark.parametrize("length", [13, 601])
def test_equals_modernbert(exact, heads, padding, length):
    modern, bert, mapped = both(heads)
    ids, mask, labels = inputs(length, padding)
    assert length < 600 or length > bert.config.max_position_embeddings
    expected = modern(ids, attention_mask=mask).logits
    assert exact == [torch.float64] * LAYERS, "the rotation in float64 is what ModernBERT called"
    loss = exact_loss(expected, labels)
    loss.backward()
    found = bert(ids, attention_mask=mask, labels=labels)
    found.loss.backward()
    real = mask.bool()
    assert_near(found.logits[real], expected[real])
    assert_near(found.loss, loss, "loss")
    assert_same_gradients(modern, bert, mapped)


@pytest.mark.parametrize("heads", [2, 4, 12])
@pytest.mark.parametrize("unpad", [False, True])
def test_packed_documents_are_those_alone_in_modernbert(exact, heads, unpad):
    modern, bert, mapped = both(heads)
    apply_sequence_packing(bert)
    apply_flash_attention(bert, "sdpa")
    if unpad:
        apply_unpadding(bert)
    ids, _, _ = inputs(600)
    lengths = [[7, 550, 43], [1, 19, 280, 290], [540, 30]]
    documents = torch.full_like(ids, -1)
    number = 0
    for row, of_row in enumerate(lengths):
        at = 0
        for length in of_row:
            number += 1
            documents[row, at : at + length] = number
            at += length
    mask = (documents > 0).long()
    chosen = torch.rand(ids.shape, generator=torch.Generator().manual_seed(1)) < 0.3
    labels = ids.masked_fill(~chosen | (mask == 0), -100)
    found = bert(ids, attention_mask=mask, document_ids=documents, labels=labels)
    found.loss.backward()
    total = torch.zeros((), dtype=torch.float64)
    for document in range(1, number + 1):
        there = documents == document
        expected = modern(ids[there][None]).logits
        assert_near(found.logits[there], expected[0])
        total = total + F.cross_entropy(expected[0], labels[there], reduction="sum")
    loss = total / (labels != -100).sum()
    loss.backward()
    assert_near(found.loss, loss, "loss")
    assert_same_gradients(modern, bert, mapped)


@pytest.mark.parametrize("heads", [2, 4, 12])
def test_a_step_of_training_without_padding_and_unlabelled_words(exact, heads):
    modern, bert, mapped = both(heads)
    apply_unpadding(bert)
    apply_sparse_prediction(bert)
    modern.train()
    bert.train()
    ids, mask, labels = inputs(41, "right")
    loss = exact_loss(modern(ids, attention_mask=mask).logits, labels)
    loss.backward()
    found = bert(ids, attention_mask=mask, labels=labels).loss
    found.backward()
    assert_near(found, loss, "loss")
    assert_same_gradients(modern, bert, mapped)


@pytest.mark.parametrize("without", ["glu", *TECHNIQUES])
def test_each_surgery_is_noticed(exact, without):
    modern, bert, _ = both(4, without)
    ids, mask, _ = inputs(13)
    expected = modern(ids, attention_mask=mask).logits
    difference = (bert(ids, attention_mask=mask).logits - expected).abs().max() / expected.abs().max()
    assert difference > 0.5


@pytest.mark.parametrize("heads", [2, 4, 12])
def test_in_float32_as_it_is(heads):
    """ModernBERT's own angles are rounded to float32, by 2**-24 of 600; ours only their cos and sin."""
    modern, bert, _ = both(heads)
    ids, mask, _ = inputs(601)
    expected = modern.float()(ids, attention_mask=mask).logits
    found = bert.float()(ids, attention_mask=mask).logits
    assert (found - expected).abs().max() / expected.abs().max() < 1e-4


def test_the_base_size_has_as_many_parameters():
    """149,655,232, with the tied table of words counted once."""
    with torch.device("meta"):
        modern = AutoModelForMaskedLM.from_config(ModernBertConfig())
        config = BertConfig(
            vocab_size=50368,
            intermediate_size=1152,
            num_hidden_layers=22,
            type_vocab_size=1,
            pad_token_id=50283,
        )
        bert = BertForMaskedLM(config)
    for apply in (apply_glu, *TECHNIQUES.values()):
        apply(bert)
    sizes = [sum(p.numel() for p in model.parameters()) for model in (modern, bert)]
    assert sizes == [149_655_232] * 2
