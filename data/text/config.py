"""The schema of a recipe's `data` section, for text."""

import re
from dataclasses import dataclass, replace

from cadenza.data.errors import DataError
from cadenza.data.text.files.encodings import Encoding
from cadenza.data.text.mixed import parts_of
from cadenza.options import Choice, Range, Text, check, option

COUNT = Range("[1, 2147483647]")
SHARE = Range("(0, 1)")
PART = Range("[0, 1]")
NAME = re.compile(r"\w[\w-]*")
MASKED = ("model.objective", ("masked_lm",))
CAUSAL = ("model.objective", ("causal_lm",))
MDS = ("data.source", ("mds",))


@dataclass
class TextConfig:
    """Where text comes from and how it becomes sequences."""

    source: str | list[str] = option(
        "python_docs",
        "`python_docs`, `c4`, `mds`, a file, a folder with all in it, a glob, a list of such, or the name of "
        "a text data set on the Hub. Files end in .txt, .jsonl, .json, .csv, .tsv, .parquet or .arrow, and "
        "compressed ones in .gz, .zst, .bz2 or .xz as well.",
        Text(),
    )
    subset: str | None = option(None, "The Hub data set's configuration; `en` for c4.", Text())
    split: str = option("train", "The Hub data set's split to train on.", Text())
    eval_split: str = option(
        "validation",
        "The Hub data set's split to evaluate on. Documents of other sources are split by a hash of their "
        "text.",
        Text(),
    )
    eval_source: str | list[str] | None = option(
        None,
        "Other evaluation text, local or `python_docs`; training then takes the whole of `source`.",
        Text(),
    )
    other_eval: dict = option(
        {},
        "Other texts to evaluate on at the end, and before training with `train.eval_first`: name -> a local "
        "source or `python_docs`, in the same fields and files; null leaves one out.",
    )
    text_field: str = option(
        "text",
        "The field with the text, in JSON, tables and Hub data sets; `meta.body` is `body` within `meta`.",
        Text(),
    )
    mixture: list[dict] | None = option(
        None,
        "Several sources in place of `source`, each a mapping with `source`, `weight` (its share of the "
        "rows) and, where they differ, `text_field`, `ids_field`, `split_text`, `encoding`, `domain_tag` and "
        "`domain_field`.",
    )
    ids_field: str | None = option(
        None,
        "The field with token ids, of documents that the recipe's tokenizer has tokenized before; they are "
        "read in place of `text_field`.",
        Text(),
    )
    split_text: str = option(
        "file",
        "What is a document in a text file: all of it, a `paragraph` between blank lines, or a `line`.",
        Choice("file", "paragraph", "line"),
    )
    encoding: str = option(
        "utf-8", "The encoding of text files, JSON and tables, such as latin-1 or utf-16.", Encoding()
    )
    on_bad_row: str = option(
        "error",
        "What to do about a row that isn't JSON, has no text in `text_field`, or doesn't fit `encoding`: "
        "`error` ends the run, `skip` leaves the row out and prints how many were.",
        Choice("error", "skip"),
    )
    deduplicate: bool = option(
        False,
        "Leave out documents whose whole text stands in an earlier one; of sources that are read as a whole.",
    )
    max_seq_len: int = option(
        128,
        "Tokens of a sequence, [CLS] and [SEP] included. For causal LM: tokens of a window, which is filled "
        "with one document after another.",
        Range("[3, 16777216]"),
    )
    long_documents: str = option(
        "truncate",
        "`truncate` keeps the first max_seq_len tokens of each, as MosaicBERT does; `split` makes as many "
        "sequences as a document fills.",
        Choice("truncate", "split"),
        only=MASKED,
    )
    mlm_probability: float = option(0.30, "The share of masked tokens in training.", SHARE, only=MASKED)
    eval_mlm_probability: float = option(
        0.15, "The share of masked tokens in evaluation.", SHARE, only=MASKED
    )
    masking: str = option(
        "token",
        "`token` masks each token by itself, `whole_word` all tokens of a word or none, in training and in "
        "evaluation.",
        Choice("token", "whole_word"),
        only=MASKED,
    )
    mask_replace_prob: float = option(
        0.8, "The share of the tokens to predict that become the mask token.", PART, only=MASKED
    )
    random_replace_prob: float = option(
        0.1,
        "The share that becomes a random word; the rest stays as it is. With `mask_replace_prob` at most 1.",
        PART,
        only=MASKED,
    )
    eval_fraction: float = option(0.05, "The share of a finite source's documents for evaluation.", SHARE)
    eval_documents: int | None = option(
        None, "The largest number of documents for evaluation; null: all.", COUNT
    )
    domain_tag: str | None = option(
        None, "Text in front of every document, without a loss of its own.", only=CAUSAL
    )
    domain_field: str | None = option(
        None,
        "The field with the name of a document's domain, as `text_field`. The domain becomes the document's "
        "tag, in place of `domain_tag`, and `upsample_from` keeps its share. A row without it is a bad row.",
        Text(),
        only=CAUSAL,
    )
    domain_format: str | None = option(
        "{domain}: ",
        "The tag of a document with `domain_field`, `{domain}` being its domain; null: no tag.",
        only=CAUSAL,
    )
    anchor_token: str | None = option(
        None,
        "The token that begins each window, an added token of the tokenizer; the saved tokenizer has it as "
        "BOS. A document that holds it is a bad row. null: BOS, or else EOS, which documents may hold.",
        Text(),
        only=CAUSAL,
    )
    end_of_document: bool = option(
        True, "Whether EOS follows each document. The code of AnchorAttention writes none.", only=CAUSAL
    )
    boundary_loss: bool = option(
        True,
        "Whether a document's last token, the EOS if there is one, is to predict the next one's first.",
        only=CAUSAL,
    )
    upsample_from: int | None = option(
        None,
        "A document of at least so many tokens comes `upsample_times` times in a pass (Fu et al., arXiv "
        "2402.10171). The sources of a mixture keep their shares of the rows. With `domain_field` each "
        "domain keeps its share of the tokens: one with fewer long documents is repeated, too; of a stream, "
        "documents of a domain that is ahead of its share are passed by.",
        COUNT,
        only=CAUSAL,
    )
    upsample_times: int = option(1, "See `upsample_from`.", Range("[1, 1000]"), only=CAUSAL)
    shuffle_buffer: int = option(10_000, "Documents in the buffer that shuffles a stream.", COUNT)
    stream: bool = option(
        True,
        "Whether a Hub data set is read while training; false: it is downloaded, and its token ids are kept "
        "on disk.",
    )
    cache_dir: str | None = option(
        None,
        "Where token ids of files are kept, about 4 bytes a token; null: `$CADENZA_CACHE`, else "
        "`~/.cache/cadenza`.",
        Text(),
    )
    num_workers: int = option(0, "Processes that load, for each device.", Range("[0, 1024]"))
    remote: str | None = option(None, "The remote folder of an `mds` data set.", Text(), only=MDS)
    local: str | None = option(None, "The local folder of an `mds` data set.", Text(), only=MDS)

    def __post_init__(self) -> None:
        check(self, "data.", DataError)
        for key in ("source", "eval_source"):
            if getattr(self, key) == []:
                raise DataError(f"data.{key} is []; it must name a file, a folder or a glob")
        self.other_eval = {name: text for name, text in self.other_eval.items() if text is not None}
        for name, text in self.other_eval.items():
            self._check_other(str(name), text)
        self._check_corruption()
        self._check_domains()
        self.parts()

    def _check_other(self, name: str, text: object) -> None:
        key, sources = f"data.other_eval.{name}", text if isinstance(text, list) else [text]
        if not NAME.fullmatch(name) or name in ("own", "eval", "train"):
            raise DataError(f"{key}: a name has letters, digits, _ and -, and isn't own, eval or train")
        if not sources or not all(isinstance(each, str) and each for each in sources):
            raise DataError(f"{key} is {text!r}; it must name a file, a folder, a glob, or a list of such")

    def _check_corruption(self) -> None:
        masked, replaced = self.mask_replace_prob, self.random_replace_prob
        if masked + replaced > 1 + 1e-9:  # 0.7 + 0.2 + 0.1 isn't 1 in floating point
            raise DataError(
                f"data.random_replace_prob is {replaced} and data.mask_replace_prob {masked}; "
                "their sum must be at most 1"
            )

    def _check_domains(self) -> None:
        if self.domain_tag is not None and self.domain_field is not None:
            both = "each names the tag of a document"
            raise DataError(f"data.domain_tag and data.domain_field are set; {both}: leave one of them null")
        if self.domain_format is not None and "{domain}" not in self.domain_format:
            raise DataError(
                f"data.domain_format is {self.domain_format!r}; it must hold {{domain}}, or be null"
            )

    def judging(self, source: str | list[str]) -> "TextConfig":
        """The same config, to evaluate `source` alone; what it trains on isn't read."""
        return replace(self, source="python_docs", mixture=None, eval_source=source, other_eval={})

    @property
    def names(self) -> list[str]:
        """The sources, those of a mixture included."""
        sources = [part.source for part, _ in self.parts()]
        return [name for source in sources for name in ([source] if isinstance(source, str) else source)]

    @property
    def field(self) -> tuple[str, str]:
        """The option that names the field of a document, and the field's name."""
        return ("ids_field", self.ids_field) if self.ids_field else ("text_field", self.text_field)

    @property
    def fields(self) -> dict[str, str]:
        """The fields of a row that are read, by the options that name them."""
        domain = {"domain_field": self.domain_field} if self.domain_field else {}
        return {**dict([self.field]), **domain}

    def parts(self) -> list[tuple["TextConfig", float]]:
        """The sources, each as a config without a mixture, with its share of the rows.

        Raises:
            DataError: an entry of `mixture` that doesn't fit.
        """
        return parts_of(self)
