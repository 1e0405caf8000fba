"""The cells of D: what is measured, done once, and summed up; texts and models that it is measured on."""

import math
import shutil

import pytest
import torch
from drawn import drawn, lines, scales  # noqa: F401
from families import build

from cadenza.attention.rotary.embedding import ExactTables
from cadenza.studies.checks import StudyError
from cadenza.studies.rope_precision import figures, loading, measuring, summary
from cadenza.studies.rope_precision.discrepancy import Discrepancy, discrepancies
from cadenza.studies.rope_precision.loading import MODES
from cadenza.studies.rope_precision.texts import texts
from cadenza.surgery import SurgeryError

IDS = torch.randint(3, 90, (2, 20), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    build("llama", initializer_range=0.3).save_pretrained(path)
    return str(path)


def plan_of(folder, **changes):
    usual = {"ids": IDS, "against": 2, "shifts": (16, 5), "at_once": {"float32": 1, "bfloat16": 2}}
    return measuring.Plan(folder, **{**usual, "device": "cpu", **changes})


def test_a_cell_for_each_mode_text_and_shift(folder, tmp_path):
    rows = measuring.run(plan_of(folder), tmp_path / "cells.csv")
    keys = [(row["mode"], row["text"], row["shift"]) for row in rows]
    modes, shifts = ("float32", "bfloat16"), ("16", "5")
    assert keys == [(mode, text, shift) for mode in modes for text in "01" for shift in shifts]
    for row in rows:
        model = loading.load(folder, MODES[row["mode"]], "cpu")
        assert next(model.parameters()).dtype == MODES[row["mode"]].dtype
        both = [16, 5] if row["mode"] == "bfloat16" else [int(row["shift"])]
        found = discrepancies(model, IDS[int(row["text"])], 2, both)[both.index(int(row["shift"]))]
        assert float(row["D, inside"]) == pytest.approx(float(found.inside.sum()))
        assert float(row["scores 20"]) == pytest.approx(float(found.scores[-1]))
        assert row["against"] == "2"


def test_what_is_done_is_not_measured_again(folder, tmp_path, monkeypatch):
    path, loaded = tmp_path / "cells.csv", []
    monkeypatch.setattr(measuring, "load", lambda *given: loaded.append(given[1]) or loading.load(*given))
    first = measuring.run(plan_of(folder), path)
    assert (measuring.run(plan_of(folder), path), len(loaded)) == (first, 2)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    assert measuring.run(plan_of(folder), path) == first
    assert loaded[2:] == [MODES["bfloat16"]]
    one = {"at_once": {"float32": 1}, "shifts": (5,)}
    assert len(measuring.run(plan_of(folder, **one), path)) == 2
    more = torch.cat([IDS, IDS.flip(0)])
    assert len(measuring.run(plan_of(folder, ids=more, **one), path)) == 4, "the first texts are done"
    assert len(loaded) == 4
    for other in ({"against": 3}, {"ids": IDS - 1}):
        assert len(measuring.run(plan_of(folder, **other, **one), path)) == 2
    assert len(loaded) == 6


def test_the_parts_by_key_add_up_to_d():
    found = Discrepancy(*(torch.rand(3, 11, dtype=torch.float64)))
    row = measuring.columns(found)
    for reading in ("inside", "outside"):
        values = getattr(found, reading)
        parts = {name: row[f"{reading} {name}"] for name in ("0", "1", "2-3", "4-7", "8-10")}
        assert (
            sum(parts.values()) == pytest.approx(row[f"D, {reading}"]) == pytest.approx(float(values.sum()))
        )
        assert parts["0"] == float(values[0])
        assert parts["8-10"] == pytest.approx(float(values[8:].sum()))
    lengths = {name: value for name, value in row.items() if name.startswith("scores ")}
    assert lengths == {f"scores {n}": float(found.scores[n - 1]) for n in (1, 2, 4, 8, 11)}
    assert measuring.spans(1) == [(0, 1)]
    assert [measuring.name(*span) for span in measuring.spans(4)] == ["0", "1", "2-3"]


def cell(mode, text, shift, first, rest, score):
    parts = {"inside 0": first, "inside 1-2": rest, "outside 0": 0.0, "outside 1-2": rest}
    sums = {"D, inside": first + rest, "D, outside": rest, "scores 2": score}
    values = {key: str(value) for key, value in {**parts, **sums}.items()}
    return {"mode": mode, "text": text, "shift": shift, "against": "0", **values}


CELLS = [
    *(cell("a", "0", "4", 1.0, 3.0, -1.0), cell("a", "1", "4", 2.0, 4.0, 2.0)),
    *(cell("a", "0", "8", 0.0, 0.0, 0.5), cell("b", "0", "4", 1.0, 0.0, 5.0)),
]


def test_means_and_spread_over_texts():
    first, same, other = summary.by_shift(CELLS)
    assert (first["mode"], first["shift"], first["against"], first["texts"]) == ("a", 4, 0, 2)
    assert first["D, inside"] == 5.0
    assert first["D, inside, deviation"] == pytest.approx(2**0.5)
    assert first["first key's share, inside"] == 0.3
    assert first["first key's share, outside"] == 0.0
    assert same["D, inside, deviation"] is None, "one text has no spread"
    assert same["first key's share, inside"] is None
    assert (other["mode"], other["texts"]) == ("b", 1)
    places = summary.by_place(CELLS)[:2]
    assert [(row["keys"], row["first"], row["inside"]) for row in places] == [("0", 0, 1.5), ("1-2", 1, 3.5)]
    assert places[1]["inside, one key"] == 1.75
    (length, *_) = summary.by_length(CELLS)
    assert (length["tokens"], length["difference"], length["|difference|"]) == (2, 0.5, 1.5)


def test_the_plots_have_a_line_for_each_mode(tmp_path, drawn):  # noqa: F811
    rows = [f(CELLS) for f in (summary.by_shift, summary.by_place, summary.by_length)]
    figures.draw(tmp_path, *rows)
    assert drawn.keys() == {f"rope_D_{name}.png" for name in ("inside", "outside", "keys", "scores")}
    assert lines(drawn["rope_D_inside.png"]) == {"a": [(4, 5), (8, 0)], "b": [(4, 1)]}
    assert lines(drawn["rope_D_keys.png"]) == {"a": [(0, 1.5), (1, 1.75)], "b": [(0, 1), (1, 0)]}
    assert scales(drawn["rope_D_inside.png"]) == ("symlog", "symlog"), "0 is a shift, and a discrepancy"


class Words:
    """A token for each letter."""

    bos_token_id = 1

    def __init__(self, begins):
        self.begins = begins

    def __call__(self, text, add_special_tokens=True):
        start = [1] if self.begins and add_special_tokens else []
        return {"input_ids": start + [ord(letter) for letter in text]}


def test_texts_are_pieces_that_begin_as_the_tokenizer_begins(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "abc"}\n{"text": "defg"}\n')
    assert texts(str(path), Words(False), 3, 2).tolist() == [[97, 98, 99], [100, 101, 102]]
    assert texts(str(path), Words(True), 3, 3).tolist() == [[1, 97, 98], [1, 99, 100], [1, 101, 102]]
    for begins, tokens, holds in ((False, 3, 2), (True, 3, 3), (True, 1, 0)):
        with pytest.raises(StudyError, match=rf"--text: .*a\.jsonl holds {holds} texts of {tokens} tokens"):
            texts(str(path), Words(begins), tokens, 4)


def test_random_weights_are_those_of_new_linear_layers(folder):
    model = loading.load(folder, MODES["random_bfloat16"], "cpu")
    weight = model.model.layers[0].mlp.down_proj.weight
    assert weight.dtype == torch.bfloat16
    bound = 1 / math.sqrt(weight.shape[1])
    assert 0.9 * bound < weight.abs().max() <= 1.01 * bound
    again = loading.load(folder, MODES["random_bfloat16"], "cpu")
    assert torch.equal(weight, again.model.layers[0].mlp.down_proj.weight)


def test_exact_positions_survive_the_cast_of_the_model(folder):
    stock, exact = (loading.load(folder, MODES[name], "cpu") for name in ("bfloat16", "bf16_safe_rope"))
    assert stock.model.rotary_emb.inv_freq.dtype == torch.float32
    assert isinstance(exact.model.rotary_emb, ExactTables)
    for a, b in zip(stock.parameters(), exact.parameters(), strict=True):
        assert a.dtype == b.dtype == torch.bfloat16
        assert torch.equal(a, b)


def test_models_whose_positions_cannot_be_shifted_are_refused(tmp_path):
    build("gpt2").save_pretrained(tmp_path / "gpt2")
    with pytest.raises(StudyError, match="gpt2 has no rotary positions on the attention interface to shift"):
        loading.outline(str(tmp_path / "gpt2"))
    dynamic = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
    build("llama", rope_parameters=dynamic).save_pretrained(tmp_path / "dynamic")
    with pytest.raises(SurgeryError, match="frequencies follow the longest position in a batch"):
        loading.outline(str(tmp_path / "dynamic"))


def test_missing_weights_are_not_drawn_at_random(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "more")
    config = tmp_path / "more" / "config.json"
    config.write_text(config.read_text().replace('"num_hidden_layers": 2', '"num_hidden_layers": 3'))
    with pytest.raises(StudyError, match=r"--model: .* lacks weights"):
        loading.load(str(tmp_path / "more"), MODES["float32"], "cpu")
