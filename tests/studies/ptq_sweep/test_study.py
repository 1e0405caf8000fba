"""The study on a small model: what it writes, and that nothing is computed twice after it was killed."""

import csv
import json

import pytest

from cadenza.recipe import load_settings
from cadenza.studies.ptq_sweep import study
from cadenza.studies.ptq_sweep.__main__ import main
from cadenza.studies.ptq_sweep.measures import generated, prediction, reference, sampling, speed
from cadenza.studies.ptq_sweep.plan import Table
from cadenza.studies.ptq_sweep.settings import Sweep

pytest.importorskip("bitsandbytes", reason="NOT VERIFIED HERE: needs bitsandbytes")
SHORT = ["formats=[nf4,none]"]
INT8 = ["formats=[none,int8]", "temperatures=[1.0]", "top_k=[5]", "seeds=[0]"]


class Killed(BaseException):
    """As if the process had ended."""


def rows(tmp_path, name):
    with (tmp_path / "out" / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def run(pairs, *more):
    return study.run(load_settings(Sweep, [], [*pairs, *more]))


@pytest.fixture
def calls(monkeypatch):
    """What is computed: counts by the name of the function."""
    found = {}

    def count(module, name):
        usual = getattr(module, name)

        def counted(*given, **options):
            found[name] = found.get(name, 0) + 1
            return usual(*given, **options)

        monkeypatch.setattr(module, name, counted)

    for module, name in (
        (reference, "write"),
        (prediction, "on_text"),
        (sampling, "sample"),
        (generated, "measures"),
        (speed, "in_turns"),
    ):
        count(module, name)
    monkeypatch.setattr(study.gc, "collect", lambda: None)  # takes a second
    return found


ALL = {"write": 1, "on_text": 2, "sample": 4, "measures": 64}


def test_what_is_computed_is_computed_once(pairs, calls, tmp_path):
    """2 formats, 2 seeds; each call has 4 settings for 2 prompts, of 2 lengths."""
    results = run(pairs, *SHORT)
    assert calls == ALL
    first = rows(tmp_path, "generation")
    assert len(first) == 2 * 2 * 4 * 2
    assert (len(rows(tmp_path, "prediction")), results.formats(results.models)) == (2, ["nf4"])
    assert not list((tmp_path / "out").glob("reference*")), "the large files are gone"
    assert run(pairs, *SHORT).generation == results.generation
    assert calls == ALL
    longer = run(pairs, *SHORT, "temperatures=[0.5,1.0,2.0]")
    assert calls == {**ALL, "sample": 8, "measures": 96}, "the new temperature alone"
    assert rows(tmp_path, "generation")[:32] == first
    assert longer.settings("temperature") == [0.5, 1, 2]
    run(pairs, *SHORT, "window=15")
    assert calls["on_text"] == 4, "other tokens are other cells"


@pytest.mark.parametrize(
    ("module", "name", "after"),
    [
        (reference, "log_probabilities", 2),
        (prediction, "on_text", 2),
        (sampling, "sample", 3),
        (generated, "measures", 5),
        (Table, "append", 1),
        (Table, "append", 9),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)).rpartition(".")[2],
)
def test_a_killed_study_goes_on(module, name, after, pairs, calls, tmp_path, monkeypatch):
    usual, left = getattr(module, name), iter(range(after - 1))

    def killed(*given, **options):
        if next(left, None) is None:
            raise Killed
        return usual(*given, **options)

    with monkeypatch.context() as patch:
        patch.setattr(module, name, killed)
        with pytest.raises(Killed):
            run(pairs, *SHORT)
    results = run(pairs, *SHORT)
    assert len(rows(tmp_path, "generation")) == 32
    assert calls["sample"] == 4, "token ids stand on disk"
    assert calls["on_text"] <= 2 + (module is Table)
    assert calls["write"] <= 1 + (module is reference)
    (tmp_path / "out").rename(tmp_path / "before")
    assert run(pairs, *SHORT).generation == results.generation, "as if it hadn't been killed"
    assert not list((tmp_path / "before").rglob("*.part"))


def test_rows_hold_what_was_measured(pairs, calls, tmp_path):
    run(pairs, *INT8)
    assert calls["in_turns"] == 2, "two batch sizes"
    plain, int8 = rows(tmp_path, "prediction")
    assert (plain["format"], json.loads(plain["kl"]), float(plain["bits"])) == ("none", [0, 0, 0], 32)
    assert all(value > 1e-6 for value in json.loads(int8["kl"]))
    row = rows(tmp_path, "generation")[0]
    assert (row["format"], row["temperature"], row["top_k"], row["max_new_tokens"]) == (
        "none",
        "1.0",
        "5",
        "3",
    )
    assert len(json.loads(row["nll"])) == 2, "a value for each prompt"
    assert all(value <= 3 for value in json.loads(row["length"]))
    batches = rows(tmp_path, "speed")
    assert [(row["format"], row["batch"]) for row in batches] == [("int8", "1"), ("int8", "2")]
    assert all(len(json.loads(row["plain_decode"])) == 2 for row in batches)


def test_lengths_are_beginnings_of_one_text(pairs, calls, tmp_path, small):
    run(pairs, *INT8)
    files = [json.loads(path.read_text()) for path in (tmp_path / "out/generated").iterdir()]
    assert sorted(file["format"] for file in files) == ["int8", "none"]
    held = {(file["format"]): file["ids"] for file in files}
    for row in rows(tmp_path, "generation"):
        cut = [float(min(len(ids), int(row["max_new_tokens"]))) for ids in held[row["format"]]]
        assert json.loads(row["length"]) == cut


@pytest.mark.slow
def test_the_page_names_models_and_findings(pairs, small, tmp_path, capsys):
    """Of two models and two texts."""
    other = small / "other.txt"
    other.write_text((small / "text.txt").read_text()[::-1])
    more = [f"models=[{small / 'tiny'},{small / 'other'}]", f"texts=[{small / 'text.txt'},{other}]"]
    assert main([*pairs, *more, "formats=[none,nf4,fp4,int8]", "seeds=[0]"]) == 0
    page = (tmp_path / "out" / "ptq_sweep.md").read_text()
    for line in (
        "### llama (tiny, other)",
        "## tiny",
        "## other",
        "Prediction on other.txt",
        "- nf4 = fp4: **",
    ):
        assert line in page
    assert "Simulated here, so that their speed isn't compared: nf4, fp4." in page
    assert page.strip() in capsys.readouterr().out
    for name in ("ptq_kl.png", "ptq_temperature.png", "ptq_speed.png"):
        assert (tmp_path / "out" / name).read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_the_unquantized_model_alone_has_a_page(pairs, tmp_path):
    assert main([*pairs, "formats=[none]", "temperatures=[1.0]", "top_k=[5]", "seeds=[0]"]) == 0
    assert "| none | 32 |" in (tmp_path / "out" / "ptq_sweep.md").read_text()


def test_what_does_not_fit_is_refused_before_anything_is_measured(pairs, calls, tmp_path, capsys):
    assert main([*pairs, "models=[./not_there]"]) == 2
    assert "there is no folder ./not_there" in capsys.readouterr().err
    assert main([*pairs, "windows=900"]) == 2
    assert "windows of 16 tokens, not 900" in capsys.readouterr().err
    assert calls == {}
