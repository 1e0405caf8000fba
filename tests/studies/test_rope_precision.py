"""The study of rotary positions: how each mode rotates, its errors, and the paper's D on a model."""

import sys

import pytest
import torch
from families import build
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from cadenza.algorithms import apply_bf16_safe_rope
from cadenza.studies import report, rope_precision
from cadenza.studies.checks import StudyError
from cadenza.studies.rope_precision import MODES, discrepancy, errors

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
    inv_freq = rope_precision.frequencies(1e4)
    assert MODES.keys() == BY_DEFINITION.keys()
    found = {name: rotate(x, positions, inv_freq) for name, rotate in MODES.items()}
    for name, right in BY_DEFINITION.items():
        expected = right(x, positions, inv_freq)
        assert found[name].dtype == expected.dtype
        assert torch.equal(found[name], expected), name
    assert len({tuple(each.double().flatten().tolist()) for each in found.values()}) == len(MODES)


def test_the_truth_is_the_product_of_complex_numbers():
    q, k, p, n = drawn()
    inv_freq = rope_precision.frequencies(1e4)

    def complex_(x, positions):
        x = x.double()
        angles = double(positions, inv_freq)
        return torch.complex(x[:, :64], x[:, 64:]) * torch.polar(torch.ones_like(angles), angles)

    expected = (complex_(q, p) * complex_(k, n).conj()).real.sum(-1)
    found = rope_precision.truth(q, k, p, n, inv_freq)
    assert found.dtype == torch.float64
    assert (found - expected).abs().max() < 1e-12 * expected.abs().max()


@pytest.mark.parametrize("theta", [1e4, 5e5])
def test_frequencies_are_those_of_transformers(theta):
    config = LlamaConfig(
        hidden_size=128,
        num_attention_heads=1,
        rope_parameters={"rope_type": "default", "rope_theta": theta},
    )
    assert torch.equal(rope_precision.frequencies(theta), LlamaRotaryEmbedding(config).inv_freq)


def test_the_error_is_relative_to_what_is_right():
    row = rope_precision._row("error", 5e5, "some", 7, torch.tensor([3.0, 4.0]), torch.tensor([1.0, 7.0]))
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

    monkeypatch.setattr(rope_precision, "HEAD", 2)
    monkeypatch.setattr(rope_precision, "MODES", {"doubled": doubled, "longer": longer})
    monkeypatch.setattr(rope_precision, "POSITIONS", (3,))
    monkeypatch.setattr(rope_precision, "SHIFTS", (5, 70_000))
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


def test_the_discrepancy_has_two_readings():
    first = [torch.tensor([[[[1.0, 0.0], [0.5, 0.5]]]])]
    second = [torch.tensor([[[[1.0, 0.0], [0.25, 0.75]]]])]
    assert discrepancy(first, second) == (0.25 / 2 + 0.25, 0.25 / 2 + 0.25)
    second = [torch.tensor([[[[0.75, 0.25], [0.75, 0.25]]]])]
    assert discrepancy(first, second) == (0.5 / 2 + 0.5, 0.0)


def test_the_discrepancy_divides_by_the_queries_that_see_a_key():
    """Of the columns of three tokens the first is seen by three, the last by one."""
    first = torch.tensor([[[1.0, 0, 0], [0.5, 0.5, 0], [0.25, 0.25, 0.5]]])
    second = torch.tensor([[[1.0, 0, 0], [0.5, 0.5, 0], [0.0, 0.125, 0.875]]])
    third = torch.tensor([[[1.0, 0, 0], [0.0, 1.0, 0], [0.5, 0.0, 0.5]]])
    by_layer = [first[None], first[None]]
    assert discrepancy([first[None]], [second[None]])[0] == pytest.approx(0.25 / 3 + 0.125 / 2 + 0.375)
    inside, outside = discrepancy(by_layer, [second[None], third[None]])
    assert inside == pytest.approx(0.25 / 3 + 0.125 / 2 + 0.375 + 0.75 / 3 + 0.75 / 2)
    assert outside == pytest.approx(0.25 / 3 + 0.125 / 2 + 0.375 + 0.25 / 3 + 0.25 / 2)
    heads = [torch.stack([first, first], 1)], [torch.stack([second, third], 1)]
    assert discrepancy(*heads) == pytest.approx((inside, outside)), "heads count as layers do"
    with pytest.raises(ValueError, match="zip"):
        discrepancy(by_layer, [second[None]])


IDS = torch.randint(3, 90, (1, 20), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A model of a vocabulary without words."""

    def tokenizer(text, return_tensors):
        assert (text, return_tensors) == ("some text", "pt")
        return {"input_ids": IDS}

    monkeypatch.setattr(rope_precision, "causal", lambda folder, length: tokenizer)
    build("llama", initializer_range=0.3).save_pretrained(tmp_path)
    return str(tmp_path)


def test_a_model_s_discrepancy_between_shifts(folder):
    rows = rope_precision.of_model(folder, IDS[:, :16], [16, 5])
    names = "float32", "bfloat16", "bf16_safe_rope"
    assert [(row["mode"], row["shift"]) for row in rows] == [
        (name, shift) for name in names for shift in (16, 5)
    ]
    for row in rows:
        dtype = SINGLE if row["mode"] == "float32" else LOW
        model = LlamaForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="eager").eval()
        if row["mode"] == "bf16_safe_rope":
            apply_bf16_safe_rope(model)
        with torch.no_grad():
            plain, moved = (
                model(
                    IDS[:, :16], position_ids=torch.arange(s, s + 16)[None], output_attentions=True
                ).attentions
                for s in (0, row["shift"])
            )
        differences = [(a.double() - b.double())[0] for a, b in zip(plain, moved, strict=True)]
        readings = {
            "D, inside": sum(
                float(d[:, :, j].abs().sum()) / (16 - j) for d in differences for j in range(16)
            ),
            "D, outside": sum(
                float(d[:, :, j].sum(-1).abs().sum()) / (16 - j) for d in differences for j in range(16)
            ),
        }
        assert {name: row[name] for name in readings} == pytest.approx(readings)
    found = {(row["mode"], row["shift"]): row["D, inside"] for row in rows}
    assert 0 < 10 * found["float32", 16] < found["bfloat16", 16]
    assert found["bf16_safe_rope", 16] != found["bfloat16", 16]


def test_a_text_must_have_so_many_tokens(folder, tmp_path):
    text = tmp_path / "a.txt"
    text.write_text("some text")
    assert torch.equal(rope_precision.ids_of(str(text), folder, 20), IDS[:, :20])
    with pytest.raises(StudyError, match=r"--text: .*a\.txt has 20 tokens; --tokens asks for 21"):
        rope_precision.ids_of(str(text), folder, 21)


@pytest.fixture
def called(monkeypatch, tmp_path):
    """Run the command line without its work: what was asked for, and what was written."""

    def called(*options):
        asked, written = [], []

        def errors(theta, pairs):
            asked.append((theta, pairs))
            return [{"kind": kind, "theta": theta} for kind in ("shift", "error")]

        monkeypatch.setattr(rope_precision, "errors", errors)
        monkeypatch.setattr(rope_precision, "ids_of", lambda *given: given)
        monkeypatch.setattr(rope_precision, "of_model", lambda *given: asked.append(given) or ["D"])
        monkeypatch.setattr(report, "write", lambda *given: written.append(given))
        monkeypatch.setattr(sys, "argv", ["rope_precision", *options])
        rope_precision.main()
        return asked, written

    return called


def test_the_command_line_and_its_defaults(called):
    asked, written = called("--out", "there")
    assert asked == [(1e4, 20_000), (5e5, 20_000)]
    shown = "position", "relative error", "mode"
    assert [(str(folder), name, rows, *axes) for folder, name, rows, *axes in written] == [
        ("there", f"rope_{kind}_theta_{name}", [{"kind": kind, "theta": theta}], *shown)
        for kind in ("error", "shift")
        for theta, name in ((1e4, "1e04"), (5e5, "5e05"))
    ]


def test_the_command_line_with_a_model(called, tmp_path, capsys):
    text = tmp_path / "text.txt"
    text.write_text("Words, and é.", encoding="utf-8")
    given = ["--theta", "100", "--pairs", "7", "--model", "folder", "--text", str(text)]
    asked, written = called(*given)
    assert asked == [(100, 7), ("folder", (str(text), "folder", 128), [16, 100_000])]
    assert [(name, rows, *axes) for _, name, rows, *axes in written[2:]] == [
        (f"rope_D_{reading}", ["D"], "shift", f"D, {reading}", "mode") for reading in ("inside", "outside")
    ]
    asked, _ = called(*given, "--tokens", "9", "--shifts", "3", "4")
    assert asked[1][1:] == ((str(text), "folder", 9), [3, 4])
    for one in (["--model", "folder"], ["--text", str(text)]):
        with pytest.raises(SystemExit):
            called(*one)
        assert "--model and --text go together" in capsys.readouterr().err
