"""The schema of a recipe's `data` section, for labelled text."""

import re
from dataclasses import dataclass

from cadenza.data.errors import DataError
from cadenza.data.text.files.encodings import Encoding
from cadenza.options import Choice, Range, Text, check, option

COUNT = Range("[1, 2147483647]")
SHARE = Range("(0, 1)")
NAME = re.compile(r"\w[\w-]*")
TARGETS = ("class", "number")


@dataclass
class LabelledConfig:
    """Where labelled text comes from, and what its labels are."""

    source: str | list[str] = option(
        "labelled.csv",
        "A file, a folder with all in it, a glob, a list of such, or the name of a data set on the Hub. "
        "Files end in .csv, .tsv, .jsonl, .json, .parquet or .arrow, and compressed ones in .gz, .zst, "
        ".bz2 or .xz as well.",
        Text(),
    )
    subset: str | None = option(None, "The Hub data set's configuration, such as `rte`.", Text())
    split: str = option("train", "The Hub data set's split to train on.", Text())
    eval_split: str = option("validation", "The Hub data set's split to evaluate on.", Text())
    eval_source: str | list[str] | None = option(
        None,
        "Local files to evaluate on; training then takes the whole of `source`. Else the examples of files "
        "are split by `eval_fraction` and `split_seed`.",
        Text(),
    )
    other_eval: dict = option(
        {},
        "Other examples to evaluate on at the end: name -> local files or, of a Hub data set, one of its "
        "splits; null leaves one out.",
    )
    text_field: str = option("text", "The field with the text; `meta.body` is `body` within `meta`.", Text())
    pair_field: str | None = option(None, "The field with the second text of a pair.", Text())
    label_field: str = option("label", "The field with the label; white space around it is left out.", Text())
    target: str = option(
        "class",
        "What a label is: a `class`, or a `number` that the model predicts by mean squared error.",
        Choice(*TARGETS),
    )
    labels: list[str] | None = option(
        None,
        "The classes, in the order of their ids; null: those that the Hub data set names, else those of the "
        "training examples, sorted; integers by their values.",
        Text(),
        only=("data.target", ("class",)),
    )
    encoding: str = option("utf-8", "The encoding of the files, such as latin-1 or utf-16.", Encoding())
    on_bad_row: str = option(
        "error",
        "What to do about a row that can't be read, or lacks a text or a label: `error` ends the run, `skip` "
        "leaves the row out and prints how many were.",
        Choice("error", "skip"),
    )
    max_seq_len: int = option(
        256,
        "Tokens of an example, special tokens included. The longer text of a pair is cut first.",
        Range("[3, 16777216]"),
    )
    eval_fraction: float = option(
        0.1, "The share of the examples for evaluation, of each class, where files aren't split.", SHARE
    )
    split_seed: int = option(
        17,
        "Which examples are for evaluation; another number than `seed`, so that seeds share a split.",
        Range("[0, 4294967295]"),
    )
    train_examples: int | None = option(
        None, "Train on so many of the training examples, chosen by `split_seed`; null: all.", COUNT
    )
    eval_examples: int | None = option(None, "The same for evaluation.", COUNT)
    num_workers: int = option(0, "Processes that load, for each device.", Range("[0, 1024]"))

    def __post_init__(self) -> None:
        check(self, "data.", DataError)
        for key in ("source", "eval_source", "labels"):
            if getattr(self, key) == []:
                raise DataError(f"data.{key} is []; it must name one at least")
        fields = [self.text_field, self.label_field, *([self.pair_field] if self.pair_field else [])]
        if len(set(fields)) < len(fields):
            raise DataError(f"data.label_field: {', '.join(fields)} must be fields of their own")
        if self.labels is not None and len(set(self.labels)) < max(len(self.labels), 2):
            raise DataError(f"data.labels is {self.labels}; it must name two classes at least, each once")
        self.other_eval = {name: text for name, text in self.other_eval.items() if text is not None}
        for name, text in self.other_eval.items():
            self._check_other(str(name), text)

    def _check_other(self, name: str, text: object) -> None:
        key, sources = f"data.other_eval.{name}", text if isinstance(text, list) else [text]
        if not NAME.fullmatch(name) or name in ("own", "eval", "train"):
            raise DataError(f"{key}: a name has letters, digits, _ and -, and isn't own, eval or train")
        if not sources or not all(isinstance(each, str) and each for each in sources):
            raise DataError(f"{key} is {text!r}; it must name files, or a split of a Hub data set")

    @property
    def names(self) -> list[str]:
        """The sources."""
        return [self.source] if isinstance(self.source, str) else self.source

    @property
    def classes(self) -> bool:
        """Whether labels are classes."""
        return self.target == "class"
