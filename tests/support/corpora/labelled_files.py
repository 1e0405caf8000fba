"""Labelled text in files of every kind, tokenizers for it, and GLUE's tasks as a stand-in for the Hub."""

import csv
import io
import json

import pyarrow as pa
import pytest
from text_files import ipc_bytes, parquet_bytes
from transformers import BertTokenizer, PreTrainedTokenizerFast, RobertaTokenizer

from cadenza.data import hub
from cadenza.data.labelled.config import LabelledConfig
from cadenza.data.labelled.sets import Example, read

ROWS = [{"text": f"w{n} w{n + 1}", "label": "ham" if n % 3 else "spam", "id": n} for n in range(30)]


def table(rows, delimiter):
    sink = io.StringIO()
    writer = csv.DictWriter(sink, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return sink.getvalue().encode()


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


# The end of a name, and the bytes of a file of these rows.
KINDS = {
    ".csv": lambda rows: table(rows, ","),
    ".tsv": lambda rows: table(rows, "\t"),
    ".jsonl": lines,
    ".json": lambda rows: json.dumps(rows).encode(),
    ".parquet": lambda rows: parquet_bytes(pa.Table.from_pylist(rows)),
    ".arrow": lambda rows: ipc_bytes(pa.Table.from_pylist(rows)),
}


def write(path, rows, kind=".jsonl"):
    """The path of a file of these rows."""
    path.write_bytes(KINDS[kind](rows))
    return str(path)


def sets(path, rows, **options):
    """What is read of a file of these rows."""
    return read(LabelledConfig(source=write(path, rows), **options))


def examples(count, paired=False):
    """Of the words w0 to w19, one of them longer than the one before; three classes."""
    text = [" ".join(f"w{(n + i) % 20}" for i in range(1 + n)) for n in range(count)]
    return [Example(text[n], "w1 w2" if paired else None, n % 3, f"row {n}") for n in range(count)]


def bert(**options):
    """A tokenizer of one token a word, which makes token types."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{n}" for n in range(40))]
    return BertTokenizer(vocab={word: n for n, word in enumerate(words)}, **options)


def roberta():
    """A tokenizer of one token a character, which makes no token types."""
    words = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "Ġ", *(chr(33 + n) for n in range(90))]
    return RobertaTokenizer(vocab={word: n for n, word in enumerate(words)}, merges=[])


def gpt2():
    """A tokenizer of one token a word with an end token, which no text gets, and without padding."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    made = Tokenizer(models.WordLevel({f"w{n}": n for n in range(40)}, unk_token="w39"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="w38", unk_token="w39")


# Of each task of GLUE on the Hub: the fields of its texts, the names of its classes, its splits.
PLAIN = ("train", "validation", "test")
GLUE = {
    "cola": (["sentence"], ["unacceptable", "acceptable"], PLAIN),
    "sst2": (["sentence"], ["negative", "positive"], PLAIN),
    "mrpc": (["sentence1", "sentence2"], ["not_equivalent", "equivalent"], PLAIN),
    "qqp": (["question1", "question2"], ["not_duplicate", "duplicate"], PLAIN),
    "stsb": (["sentence1", "sentence2"], None, PLAIN),
    "mnli": (
        ["premise", "hypothesis"],
        ["entailment", "neutral", "contradiction"],
        ("train", "validation_matched", "validation_mismatched", "test_matched", "test_mismatched"),
    ),
    "qnli": (["question", "sentence"], ["entailment", "not_entailment"], PLAIN),
    "rte": (["sentence1", "sentence2"], ["entailment", "not_entailment"], PLAIN),
}


def glue_split(task, split, count=24):
    """Rows of a split; those of test splits have the label -1."""
    import datasets

    fields, names, splits = GLUE[task]
    if split not in splits:
        raise ValueError(f'Unknown split "{split}". Should be one of {list(splits)}.')
    labels = [n % 5 * 1.25 if names is None else n % len(names) for n in range(count)]
    texts = {field: [f"{split} {field} w{n}" for n in range(count)] for field in fields}
    label = datasets.Value("float32") if names is None else datasets.ClassLabel(names=names)
    return datasets.Dataset.from_dict(
        {**texts, "label": [-1] * count if "test" in split else labels, "idx": list(range(count))},
        features=datasets.Features(
            {
                **dict.fromkeys(fields, datasets.Value("string")),
                "label": label,
                "idx": datasets.Value("int32"),
            }
        ),
    )


@pytest.fixture
def glue(monkeypatch):
    """Answer `load_dataset` with the tasks of GLUE; returns what was asked for."""
    import datasets

    calls = []

    def load(name, subset, split):
        calls.append((name, subset, split))
        return glue_split(subset, split)

    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.setattr(hub, "reachable", lambda: True)
    return calls
