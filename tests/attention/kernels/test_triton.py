"""The kernel `triton`, in Triton's interpreter on a CPU and compiled on a GPU, against float64."""

from dataclasses import replace

import pytest
import reference
import torch
from attention_calls import LENGTHS, REQUESTS, call_of, expected, tokens, with_gradients
from cases import CASES
from devices import off
from families import batch, build

from cadenza.algorithms import apply_flash_attention
from cadenza.algorithms.alibi import AlibiBias
from cadenza.attention.call import AttentionCall
from cadenza.attention.documents import Documents
from cadenza.attention.kernels import triton, triton_operators
from cadenza.attention.kernels.table import KERNELS, choose
from cadenza.recipe.parallelism import is_layer
from cadenza.surgery import SurgeryError

LONG = (700, 3, 257, 64, 65, 1)
TILES = [
    triton_operators.Tile(64, 64, 4, 2),
    triton_operators.Tile(128, 64, 4, 2),
    triton_operators.Tile(64, 128, 8, 1),
]


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
def test_output_and_gradients(request_):
    """In the interpreter, in float32, in which sums of up to 129 numbers are rounded."""
    qkv, options, theirs = expected(request_, head_dim=24)
    low = [x.detach().float().requires_grad_() for x in qkv]
    ours = with_gradients(triton.triton(call_of(**options), *low), low)
    for a, b in zip(ours, theirs, strict=True):
        assert (a.double() - b).abs().max() < 1e-6 * b.abs().max()


@pytest.mark.parametrize("tile", TILES)
def test_every_tile_gives_the_same(tile, monkeypatch):
    monkeypatch.setattr(triton_operators, "tile_of", lambda *_: tile)
    qkv, options, theirs = expected({"causal": True, "alibi": True, "window": 9})
    low = [x.detach().float().requires_grad_() for x in qkv]
    for a, b in zip(with_gradients(triton.triton(call_of(**options), *low), low), theirs, strict=True):
        assert (a.double() - b).abs().max() < 1e-6 * b.abs().max()


def test_heads_side_by_side_and_apart():
    """Views whose numbers aren't adjacent, and tokens of a projection for all three."""
    qkv, _, theirs = expected({})
    packed = torch.stack([x.detach().float() for x in qkv], 2)  # (1, total, 3, heads, head_dim)
    views = [x.requires_grad_() for x in packed.unbind(2)]
    apart = [x.detach().mT.contiguous().mT.requires_grad_() for x in views]
    for low in (views, apart):
        for a, b in zip(with_gradients(triton.triton(call_of(), *low), low), theirs, strict=True):
            assert (a.double() - b).abs().max() < 1e-6 * b.abs().max()


@pytest.mark.gpu
@pytest.mark.parametrize("head_dim", [64, 128])
@pytest.mark.parametrize(
    "asked", [{}, {"alibi": True}, {"causal": True}, {"window": 100}, {"key_heads": 2}], ids=str
)
def test_long_documents_on_a_gpu(asked, head_dim):
    """Of several tiles; in bfloat16, of which a sum in float32 is rounded once or twice."""
    key_heads, options = asked.get("key_heads", 4), {k: v for k, v in asked.items() if k != "key_heads"}
    generator = torch.Generator().manual_seed(0)
    shapes = [(1, sum(LONG), heads, head_dim) for heads in (4, key_heads, key_heads)]
    low = [torch.randn(shape, generator=generator).bfloat16() for shape in shapes]
    rounded = [x.double().requires_grad_() for x in low]
    theirs = with_gradients(reference.attention(*rounded, LONG, **options), rounded)
    low = [x.cuda().requires_grad_() for x in low]
    documents = Documents(LONG, torch.device("cuda"))
    bias = AlibiBias() if options.get("alibi") else None
    call = AttentionCall(
        None, bias, documents, options.get("causal", False), options.get("window"), 0.0, None
    )
    for a, b in zip(with_gradients(triton.triton(call, *low), low), theirs, strict=True):
        assert off(a, b) < 2 * torch.finfo(torch.bfloat16).eps


@pytest.fixture
def on_cpu(monkeypatch):
    """The kernel in layers on a CPU, where the table refuses it: the interpreter is for tests."""
    monkeypatch.setitem(KERNELS, "triton", replace(KERNELS["triton"], dtypes={"cpu": ("float32",)}))
    choose.cache_clear()
    yield
    choose.cache_clear()


@pytest.mark.slow
def test_a_layer_is_one_graph_with_its_attention(on_cpu, fresh_graphs):
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "hidden_size": 64}
    ours, plain = (build("bert", **still).train() for _ in range(2))
    for model in (ours, plain):
        for name in ("alibi", "unpadding", "sparse_prediction"):
            CASES[name].apply(model)
    apply_flash_attention(ours, "triton", prove=False)
    for layer in filter(is_layer, ours.modules()):
        layer.compile(dynamic=True, backend="aot_eager", fullgraph=True)
    for rows, length in ((6, 25), (3, 17), (9, 30)):
        inputs = batch("bert", rows=rows, length=length)
        mine, theirs = (learned(model, inputs) for model in (ours, plain))
        assert off(mine, theirs.double()) < 1e-5


def learned(model, inputs):
    """The loss and the gradients."""
    model.zero_grad()
    loss = model(**inputs).loss
    loss.backward()
    gradients = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    return torch.cat([loss.detach()[None], *gradients])


@pytest.mark.parametrize("window", [200, 2**31 - 100, 2**31, 2**63 - 1])
def test_a_window_beyond_the_documents_is_none(window):
    low = [x.detach().float() for x in tokens()]
    assert torch.equal(triton.triton(call_of(window=window), *low), triton.triton(call_of(), *low))


def test_visible_scores_of_any_height():
    """Below -1e33, and keys that stand behind the end of a document don't count."""
    query, key, value = (x.detach().float() for x in tokens())
    query[:], key[:] = -1e16, 1e16 * (1 + key.abs())
    ours = triton.triton(call_of(causal=True), query, key, value)
    theirs = reference.attention(query.double(), key.double(), value.double(), LENGTHS, causal=True)
    assert off(ours, theirs) < 1e-6


def test_transforms_of_torch_are_refused():
    query, key, value = (x.detach().float() for x in tokens())
    with pytest.raises(SurgeryError, match=r"knows no torch\.func or forward-mode"):
        torch.func.jvp(lambda q: triton.triton(call_of(), q, key, value), (query,), (query,))
    with torch.autograd.forward_ad.dual_level(), pytest.raises(SurgeryError, match="use sdpa"):
        triton.triton(call_of(), query, key, value)


def test_a_document_beyond_32_bits_is_refused():
    wide = torch.empty(2, 4, 16, device="meta").as_strided((2, 4, 16), (2**12, 16, 1))
    assert triton_operators._readable(wide, 2**19 - 1) is wide
    with pytest.raises(SurgeryError, match="a document of 524288 tokens whose rows are 4096 numbers apart"):
        triton_operators._readable(wide, 2**19)
    repeated = torch.empty(1, 32, 128, device="meta").expand(2, -1, -1)  # what is written is not
    with pytest.raises(SurgeryError, match="rows are 4096 numbers apart"):
        triton_operators._readable(repeated, 2**19)


@pytest.mark.slow
def test_torch_finds_no_fault_in_the_operators():
    """Shapes without data, the gradient's registration, no input changed."""
    query, key, value = (x.detach()[0].float().requires_grad_() for x in tokens(key_heads=2))
    starts, slopes = triton.read(call_of(alibi=True), 4)
    given = query, key, value, starts, slopes, 0.25, True, 9, max(LENGTHS)
    torch.library.opcheck(triton_operators.attention, given)
    given = *(x.detach() for x in given[:3]), *given[3:]
    output, logs = triton_operators.attention(*given)
    inner = output.sum(-1).t()  # of a gradient of ones
    torch.library.opcheck(
        triton_operators.attention_backward, (torch.ones_like(output), inner, *given[:3], logs, *given[3:])
    )
