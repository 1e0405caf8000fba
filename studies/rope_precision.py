"""How wrong is the score of two rotated vectors, by the way they are rotated?

The relative RMS error of q.k against float64 at growing positions, and the change of q.k when both positions
are shifted. (arXiv 2411.13476 looks at the change alone, which doesn't show a consistently wrong frequency.)
With --model, the paper's D (equation 4) on a model folder, with the absolute value inside and outside the sum
over rows.
"""

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from cadenza.algorithms import apply_bf16_safe_rope
from cadenza.attention.rotary.tables import tables
from cadenza.data.text.config import TextConfig
from cadenza.data.text.finite import Finite
from cadenza.options import Range
from cadenza.studies import report
from cadenza.studies.checks import StudyError, causal, count, guarded, number, plots
from cadenza.surgery.checkpoint import safe_weights

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


def discrepancy(first: Any, second: Any) -> tuple[float, float]:
    """The paper's D, with the absolute value inside and outside the sum over rows.

    `first` and `second` hold each layer's attention probabilities (1, heads, length, length).
    """
    inside = outside = 0.0
    for a, b in zip(first, second, strict=True):
        difference = a.double() - b.double()
        weights = 1 / torch.arange(difference.shape[-1], 0, -1, dtype=torch.float64)
        inside += float((difference.abs().sum(-2) * weights).sum())
        outside += float((difference.sum(-2).abs() * weights).sum())
    return inside, outside


@torch.no_grad()
def of_model(folder: str, ids: Tensor, shifts: list[int]) -> list[report.Row]:
    """D between positions from 0 and from each shift, in float32, bfloat16 and with `bf16_safe_rope`.

    `ids` (1, length) are the tokens of the text.
    """
    from transformers import AutoModelForCausalLM

    rows, length = [], ids.shape[1]
    for name, dtype in (("float32", torch.float32), ("bfloat16", LOW), ("bf16_safe_rope", LOW)):
        options = {"dtype": dtype, "attn_implementation": "eager", **safe_weights()}
        model = AutoModelForCausalLM.from_pretrained(folder, **options).eval()
        if name == "bf16_safe_rope":
            apply_bf16_safe_rope(model)
        positions = [torch.arange(length)[None] + shift for shift in (0, *shifts)]
        options = {"output_attentions": True, "use_cache": False}
        probabilities = [model(input_ids=ids, position_ids=p, **options).attentions for p in positions]
        for shift, moved in zip(shifts, probabilities[1:], strict=True):
            inside, outside = discrepancy(probabilities[0], moved)
            rows.append({"mode": name, "shift": shift, "D, inside": inside, "D, outside": outside})
    return rows


def ids_of(text: str, folder: str, length: int) -> Tensor:
    """The first tokens (1, length) of the text `text`, in the words of the model in `folder`.

    Raises:
        StudyError: no such model or file, or too short a text.
        DataError: the file can't be read.
    """
    tokenizer = causal(folder, length)
    content = " ".join(map(str, Finite(text, TextConfig(), "--text")))
    ids = tokenizer(content, return_tensors="pt")["input_ids"][:, :length]
    if ids.shape[1] < length:
        raise StudyError(f"--text: {text} has {ids.shape[1]} tokens; --tokens asks for {length}")
    return ids


def main() -> int:
    """Run the command line and return the exit code."""
    parser = report.parser("rope_precision", __doc__)
    parser.add_argument("--theta", type=number(Range("[1, 1e12]")), nargs="+", default=[1e4, 5e5])
    parser.add_argument("--pairs", type=count(), default=20_000)
    parser.add_argument("--model", help="folder of a Llama, Qwen or Mistral, for the paper's D")
    parser.add_argument("--text", help="text file for D")
    parser.add_argument("--tokens", type=count(), default=128)
    parser.add_argument("--shifts", type=count(), nargs="+", default=[16, 100_000])
    chosen = parser.parse_args()
    if (chosen.model is None) != (chosen.text is None):
        parser.error("--model and --text go together")
    return guarded(lambda: study(chosen))


def study(chosen: Any) -> None:
    """Measure and write the reports; what is named is read first."""
    plots()
    ids = ids_of(chosen.text, chosen.model, chosen.tokens) if chosen.model else None
    rows = [row for theta in chosen.theta for row in errors(theta, chosen.pairs)]
    for kind in ("error", "shift"):
        for theta in chosen.theta:
            part = [row for row in rows if row["kind"] == kind and row["theta"] == theta]
            name = f"rope_{kind}_theta_{theta:.0e}".replace("+", "")
            report.write(chosen.out, name, part, "position", "relative error", "mode")
    if ids is not None:
        found = of_model(chosen.model, ids, chosen.shifts)
        for reading in ("inside", "outside"):
            report.write(chosen.out, f"rope_D_{reading}", found, "shift", f"D, {reading}", "mode")


if __name__ == "__main__":
    sys.exit(main())
