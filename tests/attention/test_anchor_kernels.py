"""AnchorAttention's kernels against a dense float64 mask, and the masks and lengths they are given."""

import pytest
import torch
from dense_anchor import LENGTHS, attention, difference, ids_of, module

from cadenza.attention.anchor import Anchor
from cadenza.attention.call import AttentionCall
from cadenza.attention.documents import Documents
from cadenza.attention.kernels import table
from cadenza.attention.kernels.flex import _block_mask, live_blocks
from cadenza.attention.kernels.merged import merged


def on_cuda(name, dtype, tolerance):
    return pytest.param(name, "cuda", dtype, tolerance, marks=pytest.mark.gpu)


KERNELS = [
    pytest.param("sdpa", "cpu", torch.float64, 1e-10),
    pytest.param("merged", "cpu", torch.float64, 1e-10),
    pytest.param("sdpa", "cpu", torch.float32, 1e-5),
    pytest.param("merged", "cpu", torch.float32, 1e-5),
    # bfloat16 rounds by 2^-8 at each of a few places.
    pytest.param("sdpa", "cpu", torch.bfloat16, 2e-2),
    pytest.param("merged", "cpu", torch.bfloat16, 2e-2),
    *(on_cuda(name, torch.bfloat16, 2e-2) for name in ("sdpa", "merged", "flash", "flex")),
    *(on_cuda(name, torch.float16, 3e-3) for name in ("sdpa", "merged", "flash", "flex")),
]


@pytest.mark.parametrize(("name", "device", "dtype", "tolerance"), KERNELS)
@pytest.mark.parametrize("heads", [(4, 4), (6, 2), (4, 1)])
@pytest.mark.parametrize("lengths", [LENGTHS["odd"], LENGTHS["200 short"], [[130, 1, 257, 60]], [[20, 40]]])
def test_kernels_equal_the_dense_mask(name, device, dtype, tolerance, heads, lengths, fresh_graphs):
    if missing := table.KERNELS[name].missing():
        pytest.skip(f"NOT VERIFIED HERE: {name} needs {missing}")
    ids = ids_of(lengths)
    generator = torch.Generator().manual_seed(0)
    shapes = [(ids.shape[1], n, 32) for n in (heads[0], heads[1], heads[1], heads[0])]
    drawn = [torch.randn(shape, generator=generator).to(device, dtype) for shape in shapes]
    ours = [x.clone().requires_grad_() for x in drawn[:3]]
    exact = [x.double().cpu().requires_grad_() for x in drawn[:3]]
    call = AttentionCall.of(module(heads[0] // heads[1]), Anchor().documents(ids, torch.device(device)), {})
    output = table.run(name, call, *(x[None] for x in ours))
    output[0].backward(drawn[3])
    reference = attention(*exact, ids)
    reference.backward(drawn[3].double().cpu())
    assert difference(output[0].detach().double().cpu(), reference.detach()) <= tolerance
    assert difference([x.grad.double().cpu() for x in ours], [x.grad for x in exact]) <= tolerance


def test_flex_sees_what_the_dense_mask_does():
    ids = ids_of([[100, 3, 90], [200, 150], [1, 1]])
    documents = Anchor().documents(ids, torch.device("cpu"))
    rows = torch.arange(len(ids))[:, None].expand(ids.shape)[ids != -1]
    flat = ids[ids != -1]
    at = torch.arange(len(flat))
    seen = (rows[:, None] == rows) & ((flat[:, None] == flat) | (flat == 0)) & (at[:, None] >= at)
    call = AttentionCall.of(module(), documents, {})
    block = _block_mask(call)
    ours = torch.stack([block.mask_mod(0, 0, at[q], at) for q in range(len(at))])
    assert torch.equal(ours, seen)
    padded = torch.nn.functional.pad(seen, (0, -len(at) % 128, 0, -len(at) % 128))
    needed = padded.unflatten(0, (-1, 128)).unflatten(2, (-1, 128)).any(3).any(1)
    assert torch.equal(live_blocks(call), needed)


def test_one_varlen_call_gets_each_document_its_anchor():
    documents = Anchor().documents(ids_of([[2, 3], [1]]), torch.device("cpu"))
    assert documents.lengths == (1, 2, 3, 1, 1)
    assert documents.anchored_keys.tolist() == [0, 0, 1, 2, 0, 3, 4, 5, 6, 6, 7]
    assert documents.anchored_cu_seqlens.tolist() == [0, 1, 4, 8, 9, 11]


@pytest.mark.parametrize("head_dim", [3, 4, 2])
def test_the_closed_form_passes_gradcheck(head_dim):
    """As wide as there are heads of queries, or of keys, too: shapes alone can't tell them apart."""
    documents = Anchor().documents(ids_of([[2, 1], [1]]), torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    qkv = [
        torch.randn(1, documents.total, heads, head_dim, dtype=torch.float64, generator=generator)
        for heads in (4, 2, 2)
    ]
    call = AttentionCall.of(module(2), documents, {})
    assert torch.autograd.gradcheck(lambda *qkv: merged(call, *qkv), [x.requires_grad_() for x in qkv])


def test_documents_without_anchor_keep_none():
    assert Documents((2, 3), torch.device("cpu")).anchors == ()


def test_merged_looks_for_the_anchors_once_a_batch(monkeypatch):
    documents = Anchor().documents(ids_of([[3, 2], [4]]), torch.device("cpu"))
    qkv = [torch.randn(1, documents.total, 2, 4, requires_grad=True) for _ in range(3)]
    sought, unique = [], torch.Tensor.unique
    monkeypatch.setattr(torch.Tensor, "unique", lambda *a, **k: sought.append(1) or unique(*a, **k))
    for _layer in range(3):
        merged(AttentionCall.of(module(), documents, {}), *qkv).sum().backward()
    assert sought == [1]
