"""Attention by document: what reaches each kernel, at boundaries, in each dtype, and what a batch keeps."""

import sys
import types
from types import SimpleNamespace

import pytest
import reference
import torch
from attention_calls import CPU, LENGTHS, REQUESTS, Attention, call_of, expected, tokens, with_gradients
from dense_anchor import LENGTHS as ANCHORED
from dense_anchor import attention, difference, ids_of, module
from families import build

from cadenza.algorithms import apply_flash_attention, apply_unpadding
from cadenza.algorithms.alibi import AlibiBias
from cadenza.attention import AttentionPlan
from cadenza.attention.anchor import Anchor
from cadenza.attention.call import AttentionCall, additive_mask
from cadenza.attention.documents import Documents
from cadenza.attention.kernels import flash, flex, sdpa, varlen
from cadenza.attention.kernels.flex import BLOCK
from cadenza.surgery import SurgeryError


def test_options_arrive():
    documents, bias = Documents((3,), CPU), AlibiBias()
    options = {"is_causal": False, "sliding_window": 7, "dropout": 0.25, "scaling": 0.3}
    call = AttentionCall.of(Attention(True, 1), documents, options)
    assert call.module.is_causal
    assert (call.bias, call.documents) == (bias, documents)
    assert (call.causal, call.window, call.dropout, call.scaling) == (False, 7, 0.25, 0.3)


def test_options_that_are_not_given():
    one = AttentionCall.of(Attention(False, 1), Documents((5,), CPU), {})
    assert (one.causal, one.window, one.dropout, one.scaling) == (False, None, 0.0, None)
    assert AttentionCall.of(Attention(True, 1), Documents((5,), CPU), {"is_causal": None}).causal
    assert AttentionCall.of(Attention(False, 1), Documents((5,), CPU), {"is_causal": True}).causal
    assert AttentionCall.of(
        SimpleNamespace(attention_plan=AttentionPlan("sdpa")), Documents((5,), CPU), {}
    ).causal, "as transformers has it"


@pytest.mark.parametrize("name", ["plain", "causal", "grouped", "scaled"])
def test_the_scaling_that_a_kernel_chooses(name):
    """Without a scaling it is 1 / sqrt(head_dim)."""
    qkv, options, theirs = expected(REQUESTS[name])
    call = call_of(groups=4 // qkv[1].shape[2], **options)
    for a, b in zip(with_gradients(sdpa.stock(call, *qkv), qkv), theirs, strict=True):
        assert (a - b).abs().max() < 1e-12


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_model_s_own_scaling_arrives(attention):
    model, default = (
        build("gpt2", attention=attention, initializer_range=0.3, scale_attn_weights=scaled).double()
        for scaled in (False, True)
    )
    ids = torch.arange(3, 33).view(3, 10)
    before = model(ids).logits
    apply_flash_attention(model, "sdpa")
    assert (model(ids).logits - before).abs().max() < 1e-5, "an eager softmax is float32"
    assert (default(ids).logits - before).abs().max() > 1e-3


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_an_eager_model_stays_eager(family, monkeypatch):
    model = build(family, attention="eager")
    apply_unpadding(model)
    monkeypatch.setattr(
        torch.nn.functional, "scaled_dot_product_attention", lambda *args, **options: pytest.fail("not eager")
    )
    assert model(torch.arange(3, 33).view(3, 10)).logits.isfinite().all()


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", ["bert", "llama"])
def test_attention_drops_weights_in_training_alone(family, attention):
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.5}
    options = still if family == "bert" else {"attention_dropout": 0.5}
    model = build(family, attention=attention, **options)
    apply_unpadding(model)
    ids = torch.arange(3, 33).view(3, 10)
    assert torch.equal(model(ids).logits, model(ids).logits)
    model.train()
    assert not torch.equal(model(ids).logits, model(ids).logits)


@pytest.mark.parametrize("kernel", [sdpa.stock, flex.flex])
def test_documents_keep_what_each_kind_of_layer_needs(kernel, monkeypatch):
    """Layers of one model may see by window or not, causal or not, in other heads and dtypes."""
    monkeypatch.setattr(flex, "_flex_attention", lambda compiled: dense_flex)
    documents = Documents(LENGTHS, CPU)
    asked = [("plain", 4), ("window", 4), ("almost all", 4), ("causal", 4), ("alibi", 4), ("alibi", 2)]
    for name, heads in [*asked, ("causal window alibi", 4), ("plain", 4)]:
        qkv = [x.detach() for x in tokens(heads, heads=heads)]
        ours = kernel(call_of(documents=documents, **REQUESTS[name]), *qkv)
        theirs = reference.attention(*qkv, LENGTHS, **REQUESTS[name])
        assert (ours - theirs).abs().max() < (1e-12 if kernel is sdpa.stock else 1e-5), name
    low = [x.detach().float() for x in tokens()]
    assert kernel(call_of(documents=documents, alibi=True), *low).dtype == torch.float32


def dense_flex(query, key, value, *, score_mod, block_mask, scale, enable_gqa, kernel_options):
    """flex_attention by its documentation: in the blocks that are listed, what the mask shows."""
    assert kernel_options == flex.TRITON
    assert enable_gqa == (key.shape[1] != query.shape[1])
    key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], dim=1) for x in (key, value))
    scores = query @ key.mT * (query.shape[-1] ** -0.5 if scale is None else scale)
    at = torch.arange(query.shape[2])
    heads, q, k = torch.meshgrid(torch.arange(query.shape[1]), at, at, indexing="ij")
    if score_mod is not None:
        scores = score_mod(scores, torch.tensor(0), heads, q, k)
    listed = torch.zeros(len(at), len(at), dtype=torch.bool)
    assert block_mask.BLOCK_SIZE == (BLOCK, BLOCK)
    for row, columns in blocks(block_mask.kv_num_blocks, block_mask.kv_indices):
        listed[row, columns] = True
    seen = block_mask.mask_mod(0, 0, q[0], k[0]) & listed
    for row, columns in blocks(block_mask.full_kv_num_blocks, block_mask.full_kv_indices):
        assert not listed[row, columns].any(), "a block is listed twice"
        seen[row, columns] = True
    return scores.masked_fill(~seen, -torch.inf).softmax(-1) @ value


def blocks(counts, indices):
    """The rows and columns, as slices, of each block that is listed."""
    assert counts.dtype == indices.dtype == torch.int32
    for row, count in enumerate(counts[0, 0]):
        columns = indices[0, 0, row, :count].tolist()
        assert columns == sorted(columns)
        yield from (
            (slice(row * BLOCK, (row + 1) * BLOCK), slice(c * BLOCK, (c + 1) * BLOCK)) for c in columns
        )


@pytest.mark.parametrize("name", REQUESTS)
def test_what_flex_is_asked(name, monkeypatch):
    monkeypatch.setattr(flex, "_flex_attention", lambda compiled: dense_flex)
    qkv, options, theirs = expected(REQUESTS[name])
    for a, b in zip(with_gradients(flex.flex(call_of(**options), *qkv), qkv), theirs, strict=True):
        assert (a - b).abs().max() < 1e-6, "slopes are float32"


def test_what_flex_is_asked_of_anchors(monkeypatch):
    monkeypatch.setattr(flex, "_flex_attention", lambda compiled: dense_flex)
    assert anchored(flex.flex, [[130, 1, 257, 60]]) < 1e-12


def test_fa4_is_a_backend_of_flex(monkeypatch):
    asked = []

    def record(query, *rest, kernel_options, **options):
        asked.append(kernel_options)
        return query

    monkeypatch.setattr(flex, "_flex_attention", lambda compiled: record)
    for kernel in (flex.flex, flex.fa4):
        kernel(call_of(), *tokens())
    assert asked == [flex.TRITON, {"BACKEND": "FLASH"}]


def flash_by_its_documentation(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, **options):
    """flash_attn_varlen_func: causal and windows count from the last query and key, of each document."""
    assert cu_seqlens_q.dtype == cu_seqlens_k.dtype == torch.int32
    assert (max_seqlen_q, max_seqlen_k) == (int(cu_seqlens_q.diff().max()), int(cu_seqlens_k.diff().max()))
    assert options["causal"]
    assert options["window_size"] == (-1, 0)
    assert options["alibi_slopes"] is None
    parts = zip(
        *(x.split(cu.diff().tolist()) for x, cu in ((q, cu_seqlens_q), (k, cu_seqlens_k), (v, cu_seqlens_k))),
        strict=True,
    )
    outputs = []
    for query, key, value in parts:
        seen = torch.ones(len(query), len(key)).bool().tril(len(key) - len(query))
        scores = torch.einsum("qhd,khd->hqk", query, key) * options["softmax_scale"]
        weights = scores.masked_fill(~seen, -torch.inf).softmax(-1)
        outputs.append(torch.einsum("hqk,khd->qhd", weights, value))
    return torch.cat(outputs)


def anchored(kernel, lengths):
    """How far output and gradients are from plain attention to a document and the anchor."""
    ids = ids_of(lengths)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(3, 1, ids.shape[1], 4, 8, dtype=torch.float64, generator=generator)
    qkv = [x.requires_grad_() for x in drawn]
    call = AttentionCall.of(module(), Anchor().documents(ids, CPU), {"scaling": 8**-0.5})
    theirs = with_gradients(attention(*(x[0] for x in qkv), ids)[None], qkv)
    return difference(with_gradients(kernel(call, *qkv), qkv), theirs)


def test_what_flash_attn_is_asked_of_anchors(monkeypatch):
    fake = types.SimpleNamespace(flash_attn_varlen_func=flash_by_its_documentation)
    monkeypatch.setitem(sys.modules, "flash_attn", fake)
    assert anchored(flash.flash, ANCHORED["odd"]) < 1e-12
    assert anchored(flash.flash, ANCHORED["twos"]) < 1e-12


def varlen_by_flash_attn(q, k, v, cu_q, cu_k, max_q, max_k, dropout, causal, debug, **options):
    """torch's operator, whose arguments are those of flash-attn by other names."""
    assert (dropout, debug) == (0.0, False)
    window = options["window_size_left"], options["window_size_right"]
    named = {
        **{"causal": causal, "alibi_slopes": None, "softmax_scale": options["scale"]},
        "window_size": tuple(-1 if size is None else size for size in window),
    }
    return flash_by_its_documentation(q, k, v, cu_q, cu_k, max_q, max_k, **named), None


def test_what_torch_s_flash_attention_is_asked(monkeypatch):
    monkeypatch.setattr(varlen, "operator", lambda: varlen_by_flash_attn)
    assert anchored(varlen.varlen, ANCHORED["odd"]) < 1e-12
    assert anchored(varlen.varlen, ANCHORED["twos"]) < 1e-12


def test_flash_attn_drops_as_asked(monkeypatch):
    asked = []

    def record(query, *rest, **options):
        asked.append(options)
        return query

    monkeypatch.setitem(sys.modules, "flash_attn", types.SimpleNamespace(flash_attn_varlen_func=record))
    for options in ({"dropout": 0.25}, {"window": 1}, {"window": 5, "causal": True}):
        flash.flash(call_of(**options), *tokens())
    assert [options["dropout_p"] for options in asked] == [0.25, 0.0, 0.0]
    assert [options["window_size"] for options in asked] == [(-1, -1), (0, 0), (4, 0)]


def test_block_masks_and_biases_are_made_where_the_tokens_are():
    """On a device that computes with nothing but itself."""
    documents = Documents((130, 60), torch.device("meta"), anchors=(0, 0))
    assert flex.live_blocks(call_of(documents=documents, window=5, causal=True)).device.type == "meta"
    query, mask = torch.zeros(1, 2, 3, 4, device="meta"), torch.ones(1, 1, 3, 3, device="meta").bool()
    bias = AlibiBias()(query, query)
    terms = additive_mask(mask, bias, query, "sdpa"), additive_mask(mask, None, query, "eager")
    assert {term.device.type for term in terms} == {"meta"}


@pytest.mark.parametrize("stock", ["sdpa", "eager"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_hidden_keys_get_what_the_implementation_can_compute(dtype, stock):
    """In a row that sees nothing `eager` turns -inf into NaN, and `sdpa` the lowest into wrong gradients."""
    query, mask = torch.zeros(1, 2, 2, 4, dtype=dtype), torch.tensor([[[[True, False]]]])
    bias = torch.tensor([[[1.0, 2.0]], [[3.0, 4.0]]], dtype=dtype)
    hidden = -torch.inf if stock == "sdpa" else torch.finfo(dtype).min
    for term in (additive_mask(mask, None, query, stock), additive_mask(mask, bias, query, stock)):
        assert term.dtype == dtype
        assert (term[..., 1] == hidden).all()
    assert additive_mask(mask, None, query, stock)[..., 0].tolist() == [[[0.0]]]
    assert additive_mask(mask, bias, query, stock)[..., 0].tolist() == [[[1.0], [3.0]]]


def test_a_row_that_sees_nothing_has_no_gradient_in_sdpa():
    """With the lowest number torch's backward on a CPU counts each of the 45 keys once: 45, not 0 or 1."""
    query, key, value = (torch.randn(1, 1, 45, 8, requires_grad=True) for _ in range(3))
    term = additive_mask(torch.zeros(1, 1, 45, 45).bool(), None, query, "sdpa")
    output = torch.nn.functional.scaled_dot_product_attention(query, key, value, term)
    output.sum().backward()
    assert not output.any()
    assert not any(x.grad.any() for x in (query, key, value))


def test_what_is_added_of_mask_and_bias():
    query, bias = torch.zeros(1, 1, 1, 4), torch.tensor([[[1.0, 2.0]]])
    given = torch.tensor([[[[0.5, -7.0]]]])
    assert additive_mask(None, None, query, "sdpa") is None
    assert additive_mask(None, bias, query, "sdpa").tolist() == [[[[1.0, 2.0]]]]
    assert additive_mask(given, None, query, "sdpa") is given
    assert additive_mask(given, bias, query, "sdpa").tolist() == [[[[1.5, -5.0]]]]


def test_options_are_known_or_refused():
    module = Attention(True, 1)
    module.attention_plan = AttentionPlan("eager")
    documents = Documents((5,), torch.device("cpu"))
    given = {"dropout": 0.1, "scaling": 0.5, "sliding_window": 3, "softcap": 2.0, "use_cache": False}
    call = AttentionCall.of(module, documents, given)
    assert (call.dropout, call.scaling, call.window, call.own) == (0.1, 0.5, 3, {"softcap": 2.0})
    with pytest.raises(SurgeryError, match="Attention passes position_bias to attention, which"):
        AttentionCall.of(module, documents, {"position_bias": torch.zeros(1)})
    assert AttentionCall.of(module, documents, {"position_bias": None}).own == {}
