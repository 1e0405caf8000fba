"""The schema of a recipe's `data` and `tokenizer` sections."""

from dataclasses import dataclass

from cadenza.data.errors import DataError, check_choice, check_minimum


@dataclass
class TextConfig:
    """Where text comes from and how it becomes sequences.

    Args:
        source: `python_docs`, `c4`, `mds`, a path or glob of files, or the name of a text data set on the
            Hub. Files end in .jsonl, .jsonl.gz, .json.gz (JSON lines, too: C4's own names), .txt or .parquet.
        subset: the Hub data set's configuration; `en` for c4.
        split, eval_split: splits of a Hub data set. Documents of other sources are split by a hash of their
            text, `eval_fraction` of them for evaluation.
        eval_source: another source of evaluation text; training then takes the whole of `source`.
        text_field: the field that holds the text, in jsonl, parquet and Hub data sets.
        max_seq_len: tokens of a sequence, [CLS] and [SEP] included. For causal LM: tokens of a window, which
            is filled with one document after another.
        long_documents: `truncate` keeps the first max_seq_len tokens of each, as MosaicBERT does; `split`
            makes as many sequences as a document fills.
        mlm_probability, eval_mlm_probability: the share of masked tokens.
        eval_documents: the largest number of documents for evaluation; null: all.
        domain_tag: text in front of every document, without a loss of its own; for causal LM.
        boundary_loss: whether a document's last token is to predict the next one's first; for causal LM.
        upsample_from, upsample_times: a document of at least `upsample_from` tokens comes `upsample_times`
            times in a pass (Fu et al., arXiv 2402.10171); for causal LM.
        shuffle_buffer: documents in the buffer that shuffles a stream.
        num_workers: processes that load, for each device.
        remote, local: the folders of an `mds` data set.
    """

    source: str = "python_docs"
    subset: str | None = None
    split: str = "train"
    eval_split: str = "validation"
    eval_source: str | None = None
    text_field: str = "text"
    max_seq_len: int = 128
    long_documents: str = "truncate"
    mlm_probability: float = 0.30
    eval_mlm_probability: float = 0.15
    eval_fraction: float = 0.05
    eval_documents: int | None = None
    domain_tag: str | None = None
    boundary_loss: bool = True
    upsample_from: int | None = None
    upsample_times: int = 1
    shuffle_buffer: int = 10_000
    num_workers: int = 0
    remote: str | None = None
    local: str | None = None

    def __post_init__(self) -> None:
        check_choice("long_documents", self.long_documents, ("truncate", "split"))
        for key in ("mlm_probability", "eval_mlm_probability", "eval_fraction"):
            if not 0 < getattr(self, key) < 1:
                raise DataError(f"data.{key} is {getattr(self, key)}; it must lie in (0, 1)")
        check_minimum(self, max_seq_len=3, num_workers=0, shuffle_buffer=1)
        check_minimum(self, upsample_times=1, eval_documents=1)


@dataclass
class TokenizerConfig:
    """The tokenizer.

    Args:
        name: a name on the Hub, a folder, or a kind that is trained on the source's training text and cached:
            `wordpiece`, in lower case, or `byte_bpe`, to which no text is unknown. A run that loads a
            checkpoint goes on with the checkpoint's own.
        vocab_size: of a trained tokenizer.
        cache_dir: where trained tokenizers are kept; null: `$CADENZA_CACHE`, else `~/.cache/cadenza`.
    """

    name: str = "wordpiece"
    vocab_size: int = 4000
    cache_dir: str | None = None

    def __post_init__(self) -> None:
        if self.vocab_size < 300:
            raise DataError(f"tokenizer.vocab_size is {self.vocab_size}; it must be at least 300")
