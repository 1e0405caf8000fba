"""Figures as studies save them."""

import pytest


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are saved while the test runs, by the name of their file."""
    figure = pytest.importorskip("matplotlib.figure")
    found, usual = {}, figure.Figure.savefig

    def savefig(self, path, **options):
        found[path.name] = self
        usual(self, path, **options)

    monkeypatch.setattr(figure.Figure, "savefig", savefig)
    return found


def lines(figure):
    """Label -> points, of the lines that the legend names."""
    (axes,) = figure.axes
    handles, labels = axes.get_legend_handles_labels()
    return {label: points(handle) for handle, label in zip(handles, labels, strict=True)}


def points(line):
    """Of a line, or of the line of error bars."""
    line = line[0] if isinstance(line, tuple) else line
    return [(float(x), float(y)) for x, y in line.get_xydata()]


def scales(figure):
    (axes,) = figure.axes
    return axes.get_xscale(), axes.get_yscale()


def look(figure):
    """What all plots share: inches, how pale the grid is, the size of the legend's text."""
    (axes,) = figure.axes
    grid = axes.xaxis.get_gridlines()[0]
    assert grid.get_visible()
    assert figure.get_layout_engine() is not None, "labels are within the picture"
    return tuple(figure.get_size_inches()), grid.get_alpha(), axes.get_legend().prop.get_size()


LOOK = (7.0, 4.5), 0.3, pytest.approx(8.33)
