"""The study of rotary positions: how each mode rotates, and its errors."""

import pytest
import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from cadenza.studies.rope_precision import rotations
from cadenza.studies.rope_precision.rotations import MODES, errors

LOW, SINGLE = torch.bfloat16, torch.float32


def test_rounded_frequencies_ruin_scores_and_exact_ones_do_not():
    """Figures of an independent run at head width 128 and theta 10,000, to a tenth: other draws."""
    rows = errors(1e4, pairs=4000)
    error = {(r["mode"], r["position"]): r["relative error"] for r in rows if r["kind"] == "error"}
    shift = {(r["mode"], r["position"]): r["relative error"] for r in rows if r["kind"] == "shift"}
    expected = {
        ("stock, bfloat16", 4096): 3.9e-3,
        ("inv_freq rounded", 512): 7.1e-2,
        ("inv_freq rounded", 131_071): 0.99,
        ("bf16_safe_rope", 131_071): 2.4e-3,
        ("bf16_safe_rope", 1_048_575): 2.4e-3,
        ("all float32", 131_071): 5.8e-4,
    }
    for case, value in expected.items():
        assert error[case] == pytest.approx(value, rel=0.1), case
    assert shift["inv_freq rounded", 4096] == pytest.approx(5.4e-3, rel=0.1), "the shift can't see it"
    assert {at for _, at in error} == {512, 4096, 32_768, 131_071, 1_048_575}
    assert {at for _, at in shift} == {2, 16, 4096, 65_536, 126_976}
    assert {row["theta"] for row in rows} == {1e4}


def turned(x, angles, dtype):
    """Pairs (x_i, x_{i + half}) turned by `angles`, each product and sum rounded to `dtype`."""
    cos, sin, a, b = (t.to(dtype) for t in (angles.cos(), angles.sin(), *x.chunk(2, dim=-1)))
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


def single(positions, inv_freq):
    return positions.float()[:, None] * inv_freq.float()


def double(positions, inv_freq):
    return positions.double()[:, None] * inv_freq.double()


BY_DEFINITION = {
    "stock, bfloat16": lambda x, p, f: turned(x, single(p, f), LOW),
    "stock, float32 rotation": lambda x, p, f: turned(x, single(p, f), SINGLE).to(LOW),
    "inv_freq rounded": lambda x, p, f: turned(x, single(p, f.to(LOW)), LOW),
    "positions rounded": lambda x, p, f: turned(x, single(p.to(LOW), f), LOW),
    "bf16_safe_rope": lambda x, p, f: turned(x, double(p, f), SINGLE).to(LOW),
    "all float32": lambda x, p, f: turned(x, single(p, f), SINGLE),
    "float64 angles, all float32": lambda x, p, f: turned(x, double(p, f), SINGLE),
}


def drawn(pairs=50):
    generator = torch.Generator().manual_seed(0)
    q, k = (torch.randn(pairs, 128, generator=generator).to(LOW) for _ in range(2))
    p, n = (torch.randint(0, 131_072, (pairs,), generator=generator) for _ in range(2))
    return q, k, p, n


def test_each_mode_rotates_by_its_definition():
    x, _, positions, _ = drawn()
    inv_freq = rotations.frequencies(1e4)
    assert MODES.keys() == BY_DEFINITION.keys()
    found = {name: rotate(x, positions, inv_freq) for name, rotate in MODES.items()}
    for name, right in BY_DEFINITION.items():
        expected = right(x, positions, inv_freq)
        assert found[name].dtype == expected.dtype
        assert torch.equal(found[name], expected), name
    assert len({tuple(each.double().flatten().tolist()) for each in found.values()}) == len(MODES)


def test_the_truth_is_the_product_of_complex_numbers():
    q, k, p, n = drawn()
    inv_freq = rotations.frequencies(1e4)

    def complex_(x, positions):
        x = x.double()
        angles = double(positions, inv_freq)
        return torch.complex(x[:, :64], x[:, 64:]) * torch.polar(torch.ones_like(angles), angles)

    expected = (complex_(q, p) * complex_(k, n).conj()).real.sum(-1)
    found = rotations.truth(q, k, p, n, inv_freq)
    assert found.dtype == torch.float64
    assert (found - expected).abs().max() < 1e-12 * expected.abs().max()


@pytest.mark.parametrize("theta", [1e4, 5e5])
def test_frequencies_are_those_of_transformers(theta):
    config = LlamaConfig(
        hidden_size=128,
        num_attention_heads=1,
        rope_parameters={"rope_type": "default", "rope_theta": theta},
    )
    assert torch.equal(rotations.frequencies(theta), LlamaRotaryEmbedding(config).inv_freq)


def test_the_error_is_relative_to_what_is_right():
    row = rotations._row("error", 5e5, "some", 7, torch.tensor([3.0, 4.0]), torch.tensor([1.0, 7.0]))
    assert row == {
        **{"kind": "error", "theta": 5e5, "mode": "some", "position": 7},
        "relative error": pytest.approx(0.5**0.5),
    }


def test_errors_are_against_the_truth_and_shifts_against_no_shift(monkeypatch):
    """A mode that doubles both vectors has four times the score, at any shift."""
    calls = []

    def doubled(x, positions, inv_freq):
        calls.append(positions)
        return 2 * turned(x, double(positions, inv_freq), torch.float64)

    def longer(x, positions, inv_freq):
        return x.double() * (1 + positions.double()[:, None])

    monkeypatch.setattr(rotations, "HEAD", 2)
    monkeypatch.setattr(rotations, "MODES", {"doubled": doubled, "longer": longer})
    monkeypatch.setattr(rotations, "POSITIONS", (3,))
    monkeypatch.setattr(rotations, "SHIFTS", (5, 70_000))
    rows = errors(1e4, 40_000)
    shown = {(r["kind"], r["mode"], r["position"]): r["relative error"] for r in rows}
    assert shown["error", "doubled", 3] == pytest.approx(3)
    assert shown["shift", "doubled", 5] < 1e-10
    assert shown["shift", "doubled", 70_000] < 1e-9
    last, any_, p, n, p_moved, n_moved, _, _, p_far, n_far = calls
    assert set(last.tolist()) == {3}
    assert set(any_.tolist()) == {0, 1, 2, 3}
    assert (p.min(), p.max()) == (0, 4095)
    assert bool(((n >= 0) & (n <= p)).all())
    assert bool(((n == p) & (p > 2000)).any())
    assert bool(((n == 0) & (p > 2000)).any())
    assert abs(n.double().mean() / p.double().mean() - 0.5) < 0.02
    assert torch.equal(p_moved, p + 5)
    assert torch.equal(n_moved, n + 5)
    assert torch.equal(p_far, p + 70_000)
    assert torch.equal(n_far, n + 70_000)
    generator = torch.Generator().manual_seed(0)
    q, k = (torch.randn(40_000, 2, generator=generator).to(LOW) for _ in range(2))
    product = (q.double() * k.double()).sum(-1)
    here, there = (product * (1 + p + s) * (1 + n + s) for s in (0, 5))
    expected = ((there - here).square().mean() / here.square().mean()).sqrt()
    assert shown["shift", "longer", 5] == pytest.approx(float(expected))


def test_the_draws_are_those_of_the_seed():
    assert errors(1e4, 20) == errors(1e4, 20, seed=0)
    assert errors(1e4, 20) != errors(1e4, 20, seed=1)
