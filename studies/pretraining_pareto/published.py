"""Published curves of the MosaicBERT paper: GLUE against hours on eight A100 of 80 GB, to draw apart."""

from typing import NamedTuple

HARDWARE = "8 x A100-80GB"
PAPER = "Portes et al. 2023, arXiv 2312.17482"
FIGURE = f"{PAPER}, figure 1B, read from the figure: +-0.05 h, +-0.001"
TABLE = f"{PAPER}, table 1, as quoted by others"


class Curve(NamedTuple):
    """A published curve or point: (hours, GLUE between 0 and 1), and where it was found."""

    name: str
    points: tuple[tuple[float, float], ...]
    source: str


MOSAICBERT = (
    *((0.48, 0.761), (1.45, 0.8065), (2.4, 0.818), (3.4, 0.8255), (4.35, 0.8295)),
    *((5.8, 0.8355), (6.75, 0.8385), (7.7, 0.840), (8.7, 0.840), (9.65, 0.843)),
)
BERT = (
    *((0.55, 0.726), (1.65, 0.799), (2.75, 0.810), (3.85, 0.816), (5.0, 0.8215)),
    *((6.6, 0.8285), (7.7, 0.8305), (8.8, 0.831), (9.9, 0.831), (11.05, 0.8355)),
)

# No curves of the large models: their numbers were in no source that could be read.
CURVES = (
    Curve("MosaicBERT-Base", MOSAICBERT, FIGURE),
    Curve("BERT-Base", BERT, FIGURE),
    Curve("MosaicBERT-Base, table 1", ((4.6, 0.832),), TABLE),
    Curve("BERT-Base, table 1", ((11.5, 0.832),), TABLE),
    Curve("MosaicBERT-Base, abstract", ((1.13, 0.796),), f"{PAPER}, abstract"),
)
