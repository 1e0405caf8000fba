"""The scripts from end to end: a run, a verification with its files, a table of made-up results."""

import csv
import json

import cell
import pytest
import results
import run
import table
import tracks
import verify

from cadenza.studies.running.cells import done

FAST, SLOW = {"train.max_duration": "2ba"}, {"train.max_duration": "4ba"}


def tiny(script, *words):
    return script.main([*words, "--track", "tiny"])


def test_a_run_prints_time_loss_and_what_changed(place, capsys):
    place.make("01_a", **SLOW)
    place.make("02_b", **FAST)
    assert tiny(run, "optimizer.lr=0.02") == 0, "the last record"
    said = capsys.readouterr().out
    assert "02_b: 02_b\nchanged: 02_b is new\n" in said
    assert "  optimizer.lr: 0.01, here 0.02" in said
    assert "  train.max_duration: 4ba, here 2ba" in said
    (row,) = done(cell.RUNS / "tiny/runs.csv")
    assert f"02_b, seed 1: loss {float(row['loss']):.4f}, {float(row['seconds']):.1f} s of training" in said
    assert f"mean loss {float(row['loss']):.4f}; the target 9 is reached" in said
    assert "  01_a: NOT MEASURED" in said
    assert (row["batches"], row["seed"]) == ("2", "1")
    assert json.loads(row["machine"])["threads"] == 1
    assert float(row["seconds"]) > 0 < float(row["cpu_seconds"])


def test_errors_are_a_line(place, capsys):
    place.make("01_a", **SLOW)
    assert tiny(run, "01_a", "02_b") == 2
    assert tiny(run, "01_a", "data.eval_fraction=0.5") == 2
    assert tiny(verify, "01_a", "--seeds", "1", "2") == 2
    assert tiny(verify, "01_a", "--against", "01_a") == 2
    assert run.main(["--track", "h100"]) == 2 or tracks.torch.cuda.is_available()
    assert len(capsys.readouterr().err.strip().splitlines()) == 5


def measured(calls):
    """In place of training: seconds by record, and a loss that the seed shifts."""

    def call(asked):
        name, factor = asked.record.name, 1 + asked.seed / 100
        calls.append((name, asked.seed))
        asked.log.parent.mkdir(parents=True, exist_ok=True)
        asked.log.write_text(f"log of {name}\n")
        seconds = {"01_a": 100.0, "02_b": 50.0, "03_c": 49.0}[name] * factor
        seconds *= 1.2 if (name, asked.seed) == ("03_c", 2) else 1
        curve = [
            {"batch": 1, "seconds": seconds / 2, "loss": 6.0},
            {"batch": 2, "seconds": seconds, "loss": 5.0},
        ]
        named = {"record": name, "seed": asked.seed, "settings": asked.settings, "digest": "d"}
        times = {"seconds": seconds, "cpu_seconds": 2 * seconds, "composer_seconds": seconds}
        counted = {"loss": 5.0, "batches": 2, "tokens": 100, "parameters": 7, "curve": json.dumps(curve)}
        return {**named, **times, **counted, "machine": json.dumps(cell.machine(1))}

    return call


@pytest.fixture
def calls(place, monkeypatch):
    """What was run, of three records."""
    import running

    made = []
    monkeypatch.setattr(running, "measured", measured(made))
    for name in ("01_a", "02_b", "03_c"):
        place.make(name, **FAST)
    return made


def test_runs_alternate_and_are_done_once(calls, place, capsys):
    assert tiny(verify, "01_a") == 0
    assert tiny(verify, "02_b") == 0
    pairs = [("01_a", 1), ("02_b", 1), ("02_b", 2), ("01_a", 2), ("01_a", 3), ("02_b", 3)]
    assert calls == [("01_a", 1), ("01_a", 2), ("01_a", 3), *pairs]
    assert "verdict: record" in capsys.readouterr().out
    assert tiny(verify, "02_b", "--seeds", "1", "2", "3", "4") == 0
    assert calls[9:] == [("02_b", 4), ("01_a", 4)]


def test_the_files_of_a_verification(calls, place):
    for name in ("01_a", "02_b"):
        assert tiny(verify, name) == 0
    folder = place.track.records / "02_b"
    kept = results.read(folder)
    assert (kept["verdict"], kept["against"], kept["digest"], kept["target"]) == ("record", "01_a", "d", 9.0)
    assert kept["ratio"] == pytest.approx([0.5] * 3)
    assert kept["seconds"][0] == pytest.approx(50 * 1.02)
    assert [row["seed"] for row in kept["runs"]] == [row["seed"] for row in kept["runs_against"]] == [1, 2, 3]
    assert set(kept["machine"]) >= {"device", "cores", "threads", "commit", "dirty", "versions"}
    with (folder / "curve.csv").open() as file:
        assert [row["seed"] for row in csv.DictReader(file)] == ["1", "1", "2", "2", "3", "3"]
    assert (folder / "log.txt").read_text().count("log of 02_b") == 3
    assert "max_duration: 2ba" in (folder / "resolved.yaml").read_text()


def test_another_comparison_leaves_the_results_alone(calls, place):
    assert tiny(verify, "03_c", "--against", "01_a") == 0
    folder = place.track.records / "03_c"
    assert not (folder / "results.json").exists()
    assert json.loads((folder / "against_01_a.json").read_text())["ratio"][0] < 0.6


def readme(place):
    marks = "".join(f"<!-- {kind} tiny -->\n<!-- /{kind} tiny -->\n" for kind in ("records", "tried"))
    path = place.folder / "README.md"
    path.write_text(f"before\n{marks}after\n")
    return path


def test_the_table(calls, place):
    for name in ("01_a", "02_b", "03_c"):
        assert tiny(verify, name) == 0
    path = readme(place)
    with pytest.raises(table.StudyError, match="03_c: its verdict is not significant; move its folder to"):
        table.write(path, [place.track])
    place.track.tried.mkdir(parents=True)
    (place.track.records / "03_c").rename(place.track.tried / "03_c")
    place.make("04_d", **FAST)
    table.write(path, [place.track])
    once = path.read_text()
    assert "| [01_a](records/tiny/01_a) | 01_a is new | 102.0 (" in once
    assert "| 0.500 (0.500 to 0.500) | 0.500 | 5.0000 (5.0000, 5.0000, 5.0000) | 2 |" in once
    assert "| [04_d](records/tiny/04_d) | 04_d is new | NOT MEASURED |" in once
    assert "| [03_c](tried/tiny/03_c) | 03_c is new | 02_b | " in once
    assert once.startswith("before\n")
    assert once.endswith("after\n")
    with (place.track.records / "records.csv").open() as file:
        assert [row["record"] for row in csv.DictReader(file)] == ["01_a", "02_b"]
    assert (place.track.records / "records.png").stat().st_size > 10_000
    table.write(path, [place.track])
    assert path.read_text() == once, "a second time changes nothing"


def test_a_table_of_what_cannot_be_compared(calls, place):
    for name in ("01_a", "02_b"):
        assert tiny(verify, name) == 0
    file = place.track.records / "02_b/results.json"
    whole = file.read_text()
    file.write_text(whole.replace('"digest": "d"', '"digest": "e"'))
    with pytest.raises(table.StudyError, match="02_b: digest e; that of the table is d"):
        table.rows_of(place.track)
    file.write_text(whole.replace('"against": "01_a"', '"against": "00_z"'))
    with pytest.raises(table.StudyError, match="02_b: verified against 00_z; it must be against 01_a"):
        table.rows_of(place.track)


def test_another_digest_is_said(calls, place, capsys):
    assert tiny(verify, "01_a") == 0
    file = place.track.records / "01_a/results.json"
    file.write_text(file.read_text().replace('"digest": "d"', '"digest": "e"'))
    assert tiny(run, "01_a", "--seeds", "1", "2") == 0
    assert "not comparable with the table (e): run the base record here too" in capsys.readouterr().out


def test_the_tables_in_the_readme_are_those_of_the_results():
    text = (tracks.FOLDER / "README.md").read_text()
    for track in tracks.TRACKS.values():
        assert table.records_table(track, table.rows_of(track)) in text, "benchmarks/speedrun/table.py"
        assert table.tried_table(track) in text, "benchmarks/speedrun/table.py"


@pytest.mark.slow
def test_processes_of_their_own_on_the_track_of_two_cores(place, monkeypatch, capsys):
    """A small model on the real text: the same digest in both, and twice the batches of the first."""
    from cadenza.studies.running import missing, side_by_side

    if len(tracks.cores()) < 2:
        pytest.skip("NOT VERIFIED HERE: needs two cores")
    monkeypatch.setattr(missing, "run_jobs", side_by_side.run_jobs)
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")  # threads that spin would take a core from other tests
    record = place.make("x", **SLOW, **{"train.precision": "fp32", "model.config.hidden_size": 16})
    text = (record / "record.yaml").read_text()
    base = str(place.folder / "base.yaml")
    (record / "record.yaml").write_text(
        text.replace(f"- {base}", "- yamls/bert.yaml\n- yamls/scale/cpu.yaml")
    )
    assert run.main([str(record), "--seeds", "1", "2"]) == 0
    rows = done(cell.RUNS / "cpu/runs.csv")
    assert [row["seed"] for row in rows] == ["1", "2"]
    assert len({row["digest"] for row in rows}) == 1
    assert all(json.loads(row["machine"])["threads"] == 2 for row in rows)
    assert all(0 < float(row["loss"]) < 10 and row["batches"] == "4" for row in rows)
    assert "seed 2: loss" in capsys.readouterr().out
    assert "evaluation loss" in cell.Cell(record, "cpu", (), 1).log.read_text()
