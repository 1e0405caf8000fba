"""New words in a tokenizer that is trained already: read, and added."""

from cadenza.data.text.new_words.added import extended
from cadenza.data.text.new_words.listed import listed

__all__ = ["extended", "listed"]
