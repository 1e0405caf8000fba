"""Text for masked and causal language modelling, and images for classification: sources to loaders."""

from cadenza.data.config import TextConfig, TokenizerConfig
from cadenza.data.errors import DataError
from cadenza.data.image_config import ImageConfig
from cadenza.data.images import build_image_dataspec
from cadenza.data.loader import build_causal_dataspec, build_dataspec, count_tokens, unigram_entropy
from cadenza.data.masking import MaskedLMCollator
from cadenza.data.python_docs import python_docs
from cadenza.data.sequences import EpochSampler, TokenizedDocuments, TokenizedStream
from cadenza.data.sources import documents, train_texts
from cadenza.data.tokenizer import build_tokenizer, train_wordpiece

__all__ = [
    "DataError",
    "EpochSampler",
    "ImageConfig",
    "MaskedLMCollator",
    "TextConfig",
    "TokenizedDocuments",
    "TokenizedStream",
    "TokenizerConfig",
    "build_causal_dataspec",
    "build_dataspec",
    "build_image_dataspec",
    "build_tokenizer",
    "count_tokens",
    "documents",
    "python_docs",
    "train_texts",
    "train_wordpiece",
    "unigram_entropy",
]
