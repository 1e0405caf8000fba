"""Text for language models, labelled text and images for classifiers, from source to batch."""

from cadenza.data.draws import EpochSampler
from cadenza.data.errors import DataError
from cadenza.data.images.config import ImageConfig
from cadenza.data.images.loader import build_image_dataspec
from cadenza.data.labelled.config import LabelledConfig
from cadenza.data.labelled.loader import build_labelled_dataspec
from cadenza.data.text.config import TextConfig
from cadenza.data.text.datasets.sequences import TokenizedDocuments, TokenizedStream, pieces
from cadenza.data.text.loader import build_causal_dataspec, build_dataspec, count_tokens, unigram_entropy
from cadenza.data.text.masking import MaskedLMCollator
from cadenza.data.text.python_docs import python_docs
from cadenza.data.text.sources import documents, train_texts
from cadenza.data.text.tokenizer import build_tokenizer
from cadenza.data.text.tokenizer_config import TokenizerConfig
from cadenza.data.text.vocabulary import train_byte_bpe, train_unigram, train_wordpiece

__all__ = [
    "DataError",
    "EpochSampler",
    "ImageConfig",
    "LabelledConfig",
    "MaskedLMCollator",
    "TextConfig",
    "TokenizedDocuments",
    "TokenizedStream",
    "TokenizerConfig",
    "build_causal_dataspec",
    "build_dataspec",
    "build_image_dataspec",
    "build_labelled_dataspec",
    "build_tokenizer",
    "count_tokens",
    "documents",
    "pieces",
    "python_docs",
    "train_byte_bpe",
    "train_texts",
    "train_unigram",
    "train_wordpiece",
    "unigram_entropy",
]
