"""How wrong is the score of two rotated vectors, by how they were rotated?

Relative RMS error of q.k against float64 at growing positions, and its change when both positions are shifted
(arXiv 2411.13476 looks at the second alone, which a consistently wrong frequency passes). With --model, the
paper's D (equation 4) on a model folder, with the absolute value inside and outside the sum over rows.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from cadenza.algorithms import apply_bf16_safe_rope
from cadenza.studies import report
from cadenza.surgery.checkpoint import safe_weights
from cadenza.surgery.rope import tables, turned

POSITIONS = (512, 4096, 32_768, 131_071, 1_048_575)
SHIFTS = (2, 16, 4096, 65_536, 126_976)
HEAD = 128
LOW = torch.bfloat16

Rotate = Callable[[Tensor, Tensor, Tensor], Tensor]  # vectors (pairs, head), positions (pairs,), inv_freq


def stock(x: Tensor, positions: Tensor, inv_freq: Tensor, compute: torch.dtype = LOW) -> Tensor:
    """Transformers: float32 angles, cos and sin in `compute`, rotation in it."""
    angles = positions.float()[:, None] * inv_freq.float()
    cos, sin = (torch.cat([t, t], dim=-1).to(compute) for t in (angles.cos(), angles.sin()))
    a, b = x.to(compute).chunk(2, dim=-1)
    return x.to(compute) * cos + torch.cat([-b, a], dim=-1) * sin


def exact(x: Tensor, positions: Tensor, inv_freq: Tensor, out: torch.dtype = LOW) -> Tensor:
    """`bf16_safe_rope`: float64 angles, float32 rotation, one rounding."""
    cos, sin = (t[0, 0].float() for t in tables(positions[None], tuple(inv_freq.tolist()), 1.0))
    return turned(x, cos, sin, out)


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
    """(head / 2,) float32, as transformers computes them."""
    return 1.0 / theta ** (torch.arange(0, HEAD, 2).float() / HEAD)


def scores(rotate: Rotate, q: Tensor, k: Tensor, p: Tensor, n: Tensor, inv_freq: Tensor) -> Tensor:
    """(pairs,) float64: the product is exact, so that rotation alone errs."""
    return (rotate(q, p, inv_freq).double() * rotate(k, n, inv_freq).double()).sum(-1)


def truth(q: Tensor, k: Tensor, p: Tensor, n: Tensor, inv_freq: Tensor) -> Tensor:
    """The scores in float64."""
    turned_ = []
    for x, at in ((q, p), (k, n)):
        angles = at.double()[:, None] * inv_freq.double()
        a, b = x.double().chunk(2, dim=-1)
        turned_.append(
            torch.cat([a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin()], -1)
        )
    return (turned_[0] * turned_[1]).sum(-1)


def errors(theta: float, pairs: int, seed: int = 0) -> list[report.Row]:
    """Error by position and by shift, for each mode."""
    generator = torch.Generator().manual_seed(seed)
    q, k = (torch.randn(pairs, HEAD, generator=generator).to(LOW) for _ in range(2))
    inv_freq, rows = frequencies(theta), []
    for last in POSITIONS:
        p = torch.full((pairs,), last)
        n = torch.randint(0, last + 1, (pairs,), generator=generator)
        right = truth(q, k, p, n, inv_freq)
        for name, rotate in MODES.items():
            wrong = scores(rotate, q, k, p, n, inv_freq) - right
            rows.append(_row("error", theta, name, last, wrong, right))
    p = torch.randint(0, 4096, (pairs,), generator=generator)
    n = (torch.rand(pairs, generator=generator) * (p + 1)).long()
    for shift in SHIFTS:
        for name, rotate in MODES.items():
            here = scores(rotate, q, k, p, n, inv_freq)
            there = scores(rotate, q, k, p + shift, n + shift, inv_freq)
            rows.append(_row("shift", theta, name, shift, there - here, here))
    return rows


def _row(kind: str, theta: float, name: str, at: int, wrong: Tensor, right: Tensor) -> report.Row:
    relative = float(wrong.square().mean().sqrt() / right.square().mean().sqrt())
    return {"kind": kind, "theta": theta, "mode": name, "position": at, "relative error": relative}


def discrepancy(first: Any, second: Any) -> tuple[float, float]:
    """The paper's D of the attention probabilities of all layers, (1, heads, length, length) each: with the
    absolute value inside the sum over rows, and outside."""
    inside = outside = 0.0
    for a, b in zip(first, second, strict=True):
        difference = a.double() - b.double()
        weights = 1 / torch.arange(difference.shape[-1], 0, -1, dtype=torch.float64)
        inside += float((difference.abs().sum(-2) * weights).sum())
        outside += float((difference.sum(-2).abs() * weights).sum())
    return inside, outside


@torch.no_grad()
def of_model(folder: str, text: str, length: int, shifts: list[int]) -> list[report.Row]:
    """D between positions from 0 and from each shift: in float32, in bfloat16, and with `bf16_safe_rope`."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    ids = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")["input_ids"][:, :length]
    if ids.shape[1] < length:
        raise SystemExit(f"the text has {ids.shape[1]} tokens; --tokens asks for {length}")
    rows = []
    for name, dtype, ours in (
        ("float32", torch.float32, False),
        ("bfloat16", LOW, False),
        ("bf16_safe_rope", LOW, True),
    ):
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, attn_implementation="eager", **safe_weights()
        ).eval()
        if ours:
            apply_bf16_safe_rope(model)
        at = torch.arange(length)[None]
        probabilities = [
            model(input_ids=ids, position_ids=at + shift, output_attentions=True, use_cache=False).attentions
            for shift in (0, *shifts)
        ]
        for shift, moved in zip(shifts, probabilities[1:], strict=True):
            inside, outside = discrepancy(probabilities[0], moved)
            rows.append({"mode": name, "shift": shift, "D, inside": inside, "D, outside": outside})
    return rows


def main() -> None:
    """The command line."""
    parser = report.parser("rope_precision", __doc__)
    parser.add_argument("--theta", type=float, nargs="+", default=[1e4, 5e5])
    parser.add_argument("--pairs", type=int, default=20_000)
    parser.add_argument("--model", help="folder of a Llama, Qwen or Mistral, for the paper's D")
    parser.add_argument("--text", help="text file for D")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--shifts", type=int, nargs="+", default=[16, 100_000])
    chosen = parser.parse_args()
    if (chosen.model is None) != (chosen.text is None):
        parser.error("--model and --text go together")
    rows = [row for theta in chosen.theta for row in errors(theta, chosen.pairs)]
    for kind in ("error", "shift"):
        for theta in chosen.theta:
            part = [row for row in rows if row["kind"] == kind and row["theta"] == theta]
            name = f"rope_{kind}_theta_{theta:.0e}".replace("+", "")
            report.write(chosen.out, name, part, "position", "relative error", "mode")
    if chosen.model:
        with open(chosen.text, encoding="utf-8") as file:
            found = of_model(chosen.model, file.read(), chosen.tokens, chosen.shifts)
        for reading in ("inside", "outside"):
            report.write(chosen.out, f"rope_D_{reading}", found, "shift", f"D, {reading}", "mode")


if __name__ == "__main__":
    main()
