"""AnchorAttention's kernels against a dense float64 mask, and the masks and lengths they are given."""

import pytest
import torch
from dense_anchor import LENGTHS, attention, difference, ids_of, module

from cadenza.attention.anchor import Anchor
from cadenza.attention.call import AttentionCall
from cadenza.attention.documents import Documents
from cadenza.attention.kernels import table
from cadenza.attention.kernels.anchors import behind_anchors, copies
from cadenza.attention.kernels.flex import block_mask, live_blocks


def on_cuda(name, dtype, tolerance):
    return pytest.param(name, "cuda", dtype, tolerance, marks=pytest.mark.gpu)


KERNELS = [
    pytest.param("sdpa", "cpu", torch.float64, 1e-10),
    pytest.param("sdpa", "cpu", torch.float32, 1e-5),
    # bfloat16 rounds by 2^-8 at each of a few places.
    pytest.param("sdpa", "cpu", torch.bfloat16, 2e-2),
    *(on_cuda(name, torch.bfloat16, 2e-2) for name in ("sdpa", "varlen", "flash", "flex")),
    *(on_cuda(name, torch.float16, 3e-3) for name in ("sdpa", "varlen", "flash", "flex")),
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
    block = block_mask(call)
    ours = torch.stack([block.mask_mod(0, 0, at[q], at) for q in range(len(at))])
    assert torch.equal(ours, seen)
    padded = torch.nn.functional.pad(seen, (0, -len(at) % 128, 0, -len(at) % 128))
    needed = padded.unflatten(0, (-1, 128)).unflatten(2, (-1, 128)).any(3).any(1)
    assert torch.equal(live_blocks(call), needed)


def test_one_varlen_call_gets_each_document_its_anchor():
    documents = Anchor().documents(ids_of([[2, 3], [1]]), torch.device("cpu"))
    assert documents.lengths == (1, 2, 3, 1, 1)
    assert documents.anchored_keys.tolist() == [0, 9, 1, 2, 10, 3, 4, 5, 6, 12, 7]
    assert documents.anchored_cu_seqlens.tolist() == [0, 1, 4, 8, 9, 11]


def test_gradients_of_copies_are_summed_in_float32():
    """128 gradients of 1, then 256 of 1/128: in bfloat16 a sum of 128 would stay as it is."""
    documents = Anchor().documents(ids_of([[1] * 383]), torch.device("cpu"))
    tokens = torch.zeros(384, 1, dtype=torch.bfloat16, requires_grad=True)
    weights = torch.ones(384, 1, dtype=torch.bfloat16)
    weights[128:] = 1 / 128
    copies(tokens, documents).backward(weights)
    assert tokens.grad[0].item() == 128 + 2
    assert not tokens.grad[1:].any()


def test_a_copy_stands_in_front_of_each_document():
    documents = Anchor().documents(ids_of([[2, 1], [1]]), torch.device("cpu"))
    tokens = torch.arange(6.0)[:, None]
    found = behind_anchors(tokens, documents)
    assert found[:, 0].tolist() == [0, 0, 1, 2, 0, 3, 4, 4, 5]


def test_documents_without_anchor_keep_none():
    assert Documents((2, 3), torch.device("cpu")).anchors == ()
