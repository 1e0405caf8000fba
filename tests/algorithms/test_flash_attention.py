"""Kernels: the table is data, each kernel equals a plain float64 reference, and what can't be met is said."""

import subprocess
import sys
import types

import pytest
import reference
import torch
from attention_calls import LENGTHS, REQUESTS, expected, with_gradients
from families import batch, build

from cadenza.algorithms import apply_alibi, apply_flash_attention, apply_unpadding
from cadenza.algorithms.alibi import AlibiBias
from cadenza.attention import seam
from cadenza.attention.call import AttentionCall
from cadenza.attention.documents import Documents
from cadenza.attention.kernels import flash, flex, sdpa
from cadenza.attention.kernels.table import KERNELS, Needs, choose, lacks
from cadenza.surgery import SurgeryError


def computed(
    kernel, qkv, *, alibi=False, causal=False, window=None, scaling=None, device="cpu", stock="sdpa"
):
    """Output and gradients of a kernel on documents of LENGTHS."""
    module = build("llama", attention=stock).model.layers[0].self_attn
    module.attention_plan = types.SimpleNamespace(stock=stock)
    module.num_key_value_groups = qkv[0].shape[2] // qkv[1].shape[2]
    call = AttentionCall(
        *(module, AlibiBias() if alibi else None, Documents(LENGTHS, torch.device(device))),
        *(causal, window, 0.0, scaling or qkv[0].shape[-1] ** -0.5),
    )
    return with_gradients(kernel(call, *qkv), qkv)


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
@pytest.mark.parametrize("stock", ["sdpa", "eager"])
def test_the_stock_kernel_by_document(request_, stock):
    qkv, options, theirs = expected(request_)
    ours = computed(sdpa.stock, qkv, stock=stock, **options)
    for a, b in zip(ours, theirs, strict=True):
        # Transformers' eager softmax is float32 whatever comes in.
        assert (a - b).abs().max() < (1e-12 if stock == "sdpa" else 1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
def test_flex_says_the_same_uncompiled(request_):
    """Block mask and score_mod, on a CPU; torch from 2.8 on has no backward there."""
    qkv, options, theirs = expected(request_)
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) >= (2, 8):
        ours = [varlen_output(flex.flex, [each.detach() for each in qkv], options)]
    else:
        ours = computed(flex.flex, qkv, **options)
    for a, b in zip(ours, theirs, strict=False):
        # Flex computes the scores of float64 in float32.
        assert (a - b).abs().max() < 1e-5 * b.abs().max()


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
def test_live_blocks_are_those_in_which_something_is_seen(request_):
    lengths = (300, 1, 2, 120, 600, 7)
    documents = Documents(lengths, torch.device("cpu"))
    causal, window = request_.get("causal", False), request_.get("window")
    live = flex.live_blocks(AttentionCall(None, None, documents, causal, window, 0.0, None))
    at = torch.arange(sum(lengths))
    distance = at[:, None] - at[None, :]
    seen = documents.of_token[:, None] == documents.of_token[None, :]
    seen &= (distance >= 0) | (not causal)
    seen &= (distance.abs() < window) if window else True
    whole = torch.nn.functional.pad(seen, (0, -len(at) % 128, 0, -len(at) % 128))
    blocks = whole.unflatten(0, (-1, 128)).unflatten(2, (-1, 128)).any(3).any(1)
    assert torch.equal(blocks, live)


def varlen_output(kernel, qkv, options):
    call = AttentionCall(
        *(None, AlibiBias() if options.get("alibi") else None, Documents(LENGTHS, torch.device("cpu"))),
        *(options.get("causal", False), options.get("window"), 0.0),
        options.get("scaling", qkv[0].shape[-1] ** -0.5),
    )
    return kernel(call, *qkv)


def fake_flash_attn(q, k, v, *, cu_seqlens_q, max_seqlen_q, max_seqlen_k, softmax_scale, causal, **rest):
    """flash_attn_varlen_func by its documentation, in plain torch."""
    lengths = cu_seqlens_q.diff().tolist()
    assert cu_seqlens_q.dtype == torch.int32
    assert torch.equal(rest["cu_seqlens_k"], cu_seqlens_q)
    assert max_seqlen_q == max_seqlen_k == max(lengths)
    left, right = rest["window_size"]
    assert left >= -1
    assert right == (0 if causal else left)
    if rest["alibi_slopes"] is not None:
        assert rest["alibi_slopes"].dtype == torch.float32
        assert torch.allclose(rest["alibi_slopes"].double(), reference.alibi_slopes(q.shape[1]))
    options = {"alibi": rest["alibi_slopes"] is not None, "causal": causal, "scaling": softmax_scale}
    window = None if left < 0 else left + 1
    return reference.attention(q[None], k[None], v[None], lengths, window=window, **options)[0]


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
def test_what_flash_attn_is_asked(request_, monkeypatch):
    """The call, not the kernel: that is `test_cuda_kernels`."""
    module = types.SimpleNamespace(flash_attn_varlen_func=fake_flash_attn)
    monkeypatch.setitem(sys.modules, "flash_attn", module)
    qkv, options, theirs = expected(request_)
    for a, b in zip(computed(flash.flash, qkv, **options), theirs, strict=True):
        assert (a - b).abs().max() < 1e-12


@pytest.mark.gpu
@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("head_dim", [24, 64, 128])
def test_cuda_kernels(name, request_, dtype, head_dim, fresh_graphs):
    """Scores and outputs of magnitude 1 and gradients below 10: a few roundings of the dtype."""
    asked = {feature: bool(request_.get(feature)) for feature in ("alibi", "window", "causal")}
    if why := lacks(name, Needs("cuda", str(dtype).removeprefix("torch."), head_dim, **asked)):
        pytest.skip(f"NOT VERIFIED HERE: {name}: {why}")
    qkv, options, _ = expected(request_, head_dim=head_dim)
    rounded = [x.detach().to(dtype).double().requires_grad_() for x in qkv]
    theirs = with_gradients(reference.attention(*rounded, LENGTHS, **options), rounded)
    low = [x.detach().to(dtype).cuda().requires_grad_() for x in rounded]
    ours = computed(KERNELS[name].run, low, device="cuda", **options)
    for a, b in zip(ours, theirs, strict=True):
        assert (a.cpu().double() - b).abs().max() < 8 * torch.finfo(dtype).eps * b.abs().max()


@pytest.mark.slow
def test_the_table_is_printed():
    command = [sys.executable, "-m", "cadenza.attention.kernels"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "RuntimeWarning" not in done.stderr
    head, *rows = done.stdout.splitlines()
    assert head.split()[:5] == ["kernel", "here", "cpu", "cuda", "head_dim"]
    features = ["alibi", "window", "causal", "dropout", "anchor", "softcap", "sinks", "value_dim"]
    assert head.split()[5:] == [*features, "varlen"]
    assert [row.split()[0] for row in rows] == list(KERNELS)


def test_a_request_that_cannot_be_met_names_a_kernel_that_can():
    can_not = "kernel 'flex' can't do cpu, float32, head_dim 64, alibi: use sdpa "
    with pytest.raises(
        SurgeryError,
        match=can_not + ".*flash: no cpu; varlen: no cpu; triton: no cpu; flex: no cpu; fa4: no cpu",
    ):
        choose("flex", Needs("cpu", "float32", alibi=True))
    assert choose("auto", Needs("cpu", "float32", alibi=True)) == "sdpa"
    assert lacks("flex", Needs("cuda", "bfloat16", dropout=True)) == "no dropout"
    assert lacks("flash", Needs("cuda", "float32")) == "no float32 on cuda"
    assert lacks("flex", Needs("cuda", "bfloat16", head_dim=8)) == "no head_dim 8"
    assert lacks("varlen", Needs("cuda", "bfloat16", head_dim=20)) == "no head_dim 20"
    assert choose("auto", Needs("cuda", "bfloat16", head_dim=8, alibi=True)) in ("sdpa", "flash")
    with pytest.raises(SurgeryError, match="no kernel can"):
        choose("auto", Needs("mps", "float32"))


def test_a_model_says_it_too():
    model = build("bert")
    apply_flash_attention(model, "flex")
    with pytest.raises(SurgeryError, match="kernel 'flex' can't do cpu, float32, head_dim 8: use sdpa"):
        model(**batch("bert"))


@pytest.mark.skipif(not KERNELS["flash"].missing(), reason="flash-attn is installed")
def test_a_missing_package_is_said_at_once():
    with pytest.raises(SurgeryError, match="'flash' needs flash_attn, which isn't installed"):
        apply_flash_attention(build("bert"), "flash")
    with pytest.raises(SurgeryError, match="'flashh'; it must be auto, flash"):
        apply_flash_attention(build("bert"), "flashh")


@pytest.mark.parametrize("kernel", ["auto", "sdpa"])
def test_every_attention_runs_on_the_kernel(kernel, monkeypatch):
    seen = []
    run = seam.run
    monkeypatch.setattr(seam, "run", lambda name, *rest: seen.append(name) or run(name, *rest))
    model = build("bert")
    apply_flash_attention(model, kernel)
    model(**batch("bert"))
    assert seen == [kernel] * 2


def test_the_additive_term_is_made_once_a_batch(monkeypatch):
    made = []
    of_length = sdpa._of_length
    monkeypatch.setattr(sdpa, "_of_length", lambda *args: made.append(1) or of_length(*args))
    model = build("bert")
    apply_alibi(model)
    apply_unpadding(model)
    model(**batch("bert"))
    assert made == [1]


def test_equal_lengths_are_one_call(monkeypatch):
    calls = []
    sdpa = torch.nn.functional.scaled_dot_product_attention
    counted = lambda *args, **kwargs: calls.append(args[0].shape) or sdpa(*args, **kwargs)  # noqa: E731
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", counted)
    model = build("bert")
    apply_unpadding(model)
    model(**batch("bert", padding=None))
    assert calls == [(3, 4, 13, 8)] * 2
