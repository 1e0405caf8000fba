"""`metrics.jsonl`: rows of batches and evaluations, continued after a resume; and the plot of them."""

import json

import pytest
from matplotlib.figure import Figure

from cadenza.recipe.runs import curves, ended, rows

ROWS = [
    {
        "batch": 1,
        "tokens": 100,
        "seconds": 1.0,
        "loss": 5.0,
        "learning_rate": 0.1,
        "tokens_per_second": 100.0,
    },
    {
        "batch": 2,
        "tokens": 200,
        "seconds": 2.0,
        "loss": 4.0,
        "learning_rate": 0.2,
        "tokens_per_second": 100.0,
    },
    {"batch": 2, "tokens": 200, "seconds": 2.0, "evaluation": {"loss": 4.5, "accuracy": 0.25}},
    {
        "batch": 3,
        "tokens": 300,
        "seconds": 3.0,
        "loss": 3.0,
        "learning_rate": 0.1,
        "tokens_per_second": 100.0,
    },
]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / rows.FILE).write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (tmp_path / "recipe.yaml").write_text("name: mine\nmodel: {model_type: bert, pretrained: null}\n")
    (tmp_path / "run.json").write_text('{"eval": {"unigram_entropy": 4.25}}')
    return tmp_path


def test_a_row_that_was_cut_off_is_left_out(folder):
    path = folder / rows.FILE
    path.write_text(path.read_text()[:-20])
    assert rows.read(path) == ROWS[:3]
    assert rows.read(folder / "none.jsonl") == []


@pytest.mark.parametrize("batch", [1, 2, 3, 9])
def test_a_resume_goes_on_behind_its_batch(batch, folder):
    path = folder / rows.FILE
    with rows.continued(path, batch) as file:
        file.write('{"batch": 10}\n')
    assert rows.read(path) == [row for row in ROWS if row["batch"] <= batch] + [{"batch": 10}]


def test_a_cut_row_does_not_spoil_the_next(folder):
    path = folder / rows.FILE
    path.write_text(path.read_text()[:-20])
    with rows.continued(path, 3) as file:
        file.write('{"batch": 10}\n')
    assert rows.read(path) == [*ROWS[:3], {"batch": 10}]


def test_another_training_sets_the_earlier_rows_aside(folder):
    rows.continued(folder / rows.FILE, 0).close()
    assert rows.read(folder / rows.FILE) == []
    (earlier,) = folder.glob("metrics-*.jsonl")
    assert rows.read(earlier) == ROWS


def test_the_curve_holds_evaluations_alone():
    assert rows.curve(ROWS) == [{"batch": 2, "tokens": 200, "seconds": 2.0, "loss": 4.5, "accuracy": 0.25}]


def test_a_folder_is_read(folder):
    run = curves.read(folder)
    assert (run.name, run.model, run.unigram_entropy) == ("mine", "bert", 4.25)
    assert run.training == [row for row in ROWS if "loss" in row]
    assert run.evaluation == rows.curve(ROWS)


def test_a_run_that_has_not_ended_is_read(folder):
    (folder / "run.json").unlink()
    (folder / "recipe.yaml").unlink()
    run = curves.read(folder)
    assert (run.name, run.model, run.unigram_entropy) == (folder.name, "", None)
    with pytest.raises(FileNotFoundError, match=r"there is no metrics.jsonl in it"):
        curves.read(folder / "none")


@pytest.fixture
def figures(monkeypatch):
    """The figures that are saved."""
    saved, save = [], Figure.savefig

    def kept(figure, *args, **kwargs):
        saved.append(figure)
        return save(figure, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", kept)
    return saved


def test_what_is_drawn(folder, figures):
    path = curves.draw([curves.read(folder)], folder / "plot.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    (figure,) = figures
    loss, rate, throughput = figure.axes
    assert figure.get_suptitle() == "mine (bert)"
    drawn = {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in loss.lines}
    assert drawn["training"] == ([1, 2, 3], [5.0, 4.0, 3.0])
    assert drawn["evaluation"] == ([2], [4.5])
    assert drawn["unigram entropy of the evaluation text"][1] == [4.25, 4.25]
    assert list(rate.lines[0].get_ydata()) == [0.1, 0.2, 0.1]
    assert list(throughput.lines[0].get_ydata()) == [100.0] * 3
    words = [axes.get_ylabel() for axes in figure.axes]
    assert words == ["loss, cross-entropy in nats", "learning rate", "tokens per second"]
    assert throughput.get_xlabel() == "batches"


@pytest.mark.parametrize("runs", [1, 4])
def test_the_legend_covers_no_axes(runs, folder, figures):
    curves.draw([curves.read(folder)] * runs, folder / "plot.png")
    (figure,) = figures
    (legend,) = figure.legends
    covered = legend.get_window_extent()
    assert not any(covered.overlaps(axes.get_tightbbox()) for axes in figure.axes)


def test_several_runs_against_tokens(folder, figures):
    one = curves.read(folder)
    other = curves.Curves("other", "llama", [{"tokens": 50, "loss": 2.0, "samples_per_second": 3.0}], [])
    curves.draw([one, other], folder / "plot.png", against="tokens")
    (figure,) = figures
    labels = [line.get_label() for line in figure.axes[0].lines]
    assert {"mine: training", "mine: evaluation", "other: training"} <= set(labels)
    assert figure.get_suptitle() == "mine (bert), other (llama)"
    assert figure.axes[2].get_xlabel() == "tokens"
    assert figure.axes[2].get_ylabel() == "tokens per second or samples per second"


def test_without_matplotlib_there_is_a_line(folder, monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    ended.plot(folder)
    said = "no plot: matplotlib isn't installed (pip install 'cadenza[studies]')\n"
    assert capsys.readouterr().out == said
    assert not (folder / curves.PLOT).exists()
