"""Published layouts of encoders that are stock BERT after surgeries, read and written bit for bit."""

from cadenza.models.published.modernbert import load_modernbert, save_modernbert
from cadenza.models.published.mosaicbert import load_mosaicbert, save_mosaicbert

__all__ = ["load_modernbert", "load_mosaicbert", "save_modernbert", "save_mosaicbert"]
