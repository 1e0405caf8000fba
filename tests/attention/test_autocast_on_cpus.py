"""Attention under autocast on a CPU: SDPA in float32, whose gradients are nearer to those of float64."""

import pytest
import torch
import torch.nn.functional as F
from families import batch, build

from cadenza.algorithms import apply_alibi, apply_flash_attention, apply_unpadding

DTYPES = (torch.bfloat16, torch.float16)


@pytest.fixture
def seen(monkeypatch):
    """The dtypes of query, mask and autocast in each call of SDPA."""
    calls, stock = [], F.scaled_dot_product_attention

    def watched(query, key, value, attn_mask=None, **options):
        mask = None if attn_mask is None else attn_mask.dtype
        calls.append((query.dtype, key.dtype, value.dtype, mask, torch.is_autocast_enabled("cpu")))
        return stock(query, key, value, attn_mask, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", watched)
    return calls


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("apply", [apply_unpadding, apply_flash_attention, apply_alibi])
def test_sdpa_computes_in_float32(apply, dtype, seen):
    model = build("bert")
    apply(model)
    with torch.autocast("cpu", dtype):
        model(**batch("bert")).loss.backward()
    assert seen
    for query, key, value, mask, autocast in seen:
        assert query == key == value == torch.float32
        assert mask in (None, torch.bool, torch.float32)
        assert not autocast


def test_outside_of_autocast_nothing_is_widened(seen):
    model = build("bert").bfloat16()
    apply_unpadding(model)
    model(**batch("bert"))
    assert {call[0] for call in seen} == {torch.bfloat16}


def gradients(query, dtype, inner):
    """Of SDPA on `query` and more from the same numbers, in `dtype`, computed in `inner`."""
    leaves = [x.to(dtype).requires_grad_() for x in query]
    output = F.scaled_dot_product_attention(*(x.to(inner) for x in leaves)).to(dtype)
    output.backward(output.detach())
    return [x.grad.double() for x in leaves]


@pytest.mark.parametrize("length", [16, 128, 200])
def test_gradients_in_float32_are_nearer(length):
    generator = torch.Generator().manual_seed(length)
    given = [torch.randn(2, 4, length, 32, generator=generator).bfloat16() for _ in range(3)]
    exact = gradients(given, torch.float64, torch.float64)
    wide = gradients(given, torch.bfloat16, torch.float32)
    narrow = gradients(given, torch.bfloat16, torch.bfloat16)
    for right, near, far in zip(exact, wide, narrow, strict=True):
        assert (near - right).norm() < 0.9 * (far - right).norm()
