"""The published curves are the numbers of their sources, and are drawn on axes that name the hardware."""

from cadenza.studies.pretraining_pareto import page, published

# Figure 1B of arXiv 2312.17482: hours and GLUE, written down apart from the source.
READ = {
    "MosaicBERT-Base": ".48 .761 | 1.45 .8065 | 2.4 .818 | 3.4 .8255 | 4.35 .8295 | 5.8 .8355 | 6.75 .8385 "
    "| 7.7 .840 | 8.7 .840 | 9.65 .843",
    "BERT-Base": ".55 .726 | 1.65 .799 | 2.75 .810 | 3.85 .816 | 5.0 .8215 | 6.6 .8285 | 7.7 .8305 "
    "| 8.8 .831 | 9.9 .831 | 11.05 .8355",
}
SINGLE = {
    "MosaicBERT-Base, table 1": (4.6, 0.832),
    "BERT-Base, table 1": (11.5, 0.832),
    "MosaicBERT-Base, abstract": (1.13, 0.796),
}
CURVES = {curve.name: curve for curve in published.CURVES}


def test_the_curves_are_those_of_the_figure():
    for name, text in READ.items():
        numbers = [tuple(map(float, pair.split())) for pair in text.split("|")]
        assert list(CURVES[name].points) == numbers
        assert "read from the figure" in CURVES[name].source
        assert "+-0.05 h" in CURVES[name].source


def test_the_single_points_are_those_of_the_table_and_the_abstract():
    assert CURVES.keys() == READ.keys() | SINGLE.keys()
    for name, point in SINGLE.items():
        assert CURVES[name].points == (point,)
        assert name.split(", ")[1] in CURVES[name].source
        assert "read from the figure" not in CURVES[name].source


def test_the_points_agree_with_the_curves():
    """As far as a figure can be read: the table's point lies within 0.004 of the curve of its model."""
    for name, (hours, glue) in SINGLE.items():
        curve = CURVES[name.split(",")[0]].points
        near = sorted(curve, key=lambda point: abs(point[0] - hours))[:2]
        low, high = min(near)[1], max(near)[1]
        assert min(low, high) - 0.004 <= glue <= max(low, high) + 0.004


def test_every_published_hour_names_its_hardware():
    table = page.published_table()
    assert published.HARDWARE == "8 x A100-80GB"
    assert "by hours on 8 x A100-80GB" in table
    assert all(curve.source in table for curve in published.CURVES)
