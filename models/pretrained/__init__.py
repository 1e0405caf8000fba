"""Models that are trained already: loaded from a folder or the Hub, with their surgeries and new words."""

from cadenza.models.pretrained.exported import held_in, model_folder
from cadenza.models.pretrained.loading import pretrained_model
from cadenza.models.pretrained.new_words import add_words
from cadenza.models.pretrained.recorded import recorded

__all__ = ["add_words", "held_in", "model_folder", "pretrained_model", "recorded"]
