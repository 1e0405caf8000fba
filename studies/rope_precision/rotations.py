"""The error of q.k by the way in which query and key are rotated, and its change with a shift."""

from collections.abc import Callable

import torch
from torch import Tensor

from cadenza.attention.rotary.tables import tables
from cadenza.studies import report

POSITIONS = (512, 4096, 32_768, 131_071, 1_048_575)
SHIFTS = (2, 16, 4096, 65_536, 126_976)
HEAD = 128
LOW = torch.bfloat16

Rotate = Callable[[Tensor, Tensor, Tensor], Tensor]  # (pairs, HEAD), positions (pairs,), (HEAD / 2,)


def stock(x: Tensor, positions: Tensor, inv_freq: Tensor, compute: torch.dtype = LOW) -> Tensor:
    """The rotation of transformers: angles in float32; cos, sin and the products in `compute`."""
    angles = positions.float()[:, None] * inv_freq.float()
    cos, sin = (torch.cat([t, t], dim=-1).to(compute) for t in (angles.cos(), angles.sin()))
    return _rotated(x.to(compute), cos, sin)


def exact(x: Tensor, positions: Tensor, inv_freq: Tensor, out: torch.dtype = LOW) -> Tensor:
    """The rotation of `bf16_safe_rope`: angles in float64, products in float32, rounded once."""
    exact_tables = tables(positions, tuple(inv_freq.tolist()), 1.0)
    cos, sin = (torch.cat([t, t], dim=-1).float() for t in exact_tables)
    return _rotated(x, cos, sin).to(out)


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-b, a], dim=-1) * sin


MODES: dict[str, Rotate] = {
    "stock, bfloat16": stock,
    "stock, float32 rotation": lambda x, p, f: stock(x, p, f, torch.float32).to(LOW),
    "inv_freq rounded": lambda x, p, f: stock(x, p, f.to(LOW)),
    "positions rounded": lambda x, p, f: stock(x, p.to(LOW), f),
    "bf16_safe_rope": exact,
    "all float32": lambda x, p, f: stock(x, p, f, torch.float32),
    "float64 angles, all float32": lambda x, p, f: exact(x, p, f, torch.float32),
}


def frequencies(theta: float) -> Tensor:
    """The inverse frequencies (HEAD / 2,) in float32, as transformers computes them."""
    return 1.0 / theta ** (torch.arange(0, HEAD, 2).float() / HEAD)


def scores(rotate: Rotate, q: Tensor, k: Tensor, p: Tensor, n: Tensor, inv_freq: Tensor) -> Tensor:
    """The scores (pairs,) in float64: the products are exact, so that all error is the rotation's."""
    return (rotate(q, p, inv_freq).double() * rotate(k, n, inv_freq).double()).sum(-1)


def truth(q: Tensor, k: Tensor, p: Tensor, n: Tensor, inv_freq: Tensor) -> Tensor:
    """The scores (pairs,) with the rotation in float64 as well."""
    rotated = []
    for x, positions in ((q, p), (k, n)):
        angles = positions.double()[:, None] * inv_freq.double()
        a, b = x.double().chunk(2, dim=-1)
        halves = [a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin()]
        rotated.append(torch.cat(halves, -1))
    return (rotated[0] * rotated[1]).sum(-1)


def errors(theta: float, pairs: int, seed: int = 0) -> list[report.Row]:
    """The errors by position and the changes by shift, for each mode, on random vectors."""
    generator = torch.Generator().manual_seed(seed)
    q, k = (torch.randn(pairs, HEAD, generator=generator).to(LOW) for _ in range(2))
    inv_freq, rows = frequencies(theta), []
    for position in POSITIONS:
        p = torch.full((pairs,), position)
        n = torch.randint(0, position + 1, (pairs,), generator=generator)
        exact_scores = truth(q, k, p, n, inv_freq)
        for name, rotate in MODES.items():
            error = scores(rotate, q, k, p, n, inv_freq) - exact_scores
            rows.append(_row("error", theta, name, position, error, exact_scores))
    p = torch.randint(0, 4096, (pairs,), generator=generator)
    n = (torch.rand(pairs, generator=generator) * (p + 1)).long()
    for shift in SHIFTS:
        for name, rotate in MODES.items():
            before = scores(rotate, q, k, p, n, inv_freq)
            after = scores(rotate, q, k, p + shift, n + shift, inv_freq)
            rows.append(_row("shift", theta, name, shift, after - before, before))
    return rows


def _row(kind: str, theta: float, mode: str, position: int, error: Tensor, expected: Tensor) -> report.Row:
    relative = float(error.square().mean().sqrt() / expected.square().mean().sqrt())
    return {"kind": kind, "theta": theta, "mode": mode, "position": position, "relative error": relative}
