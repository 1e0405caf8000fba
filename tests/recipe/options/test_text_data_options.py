"""Every option of the section `data` of a recipe for text, by what it changes in its loaders."""

import json
import zlib
from dataclasses import fields
from types import SimpleNamespace

import pytest
from streams_of_recipes import HUB, SHARDS, data
from words import Words

from cadenza.data import DataError
from cadenza.data.text.config import TextConfig
from cadenza.recipe import load

TEXTS = [f"number{n} " + "word " * n for n in range(40)]  # of n + 1 words
FOUND = "data.source={}/a.jsonl", "data.max_seq_len=16", "data.eval_fraction=0.3", "train.global_batch_size=4"


class OneOrMore(Words):
    """Takes a text by itself, too, as a tag is given; <start> is an added token."""

    eos_token = sep_token = pad_token = None

    def get_added_vocab(self):
        return {"<start>": 4}

    def __call__(self, texts, **options):
        if isinstance(texts, str):
            return {"input_ids": super().__call__([texts])["input_ids"][0]}
        return super().__call__(texts)


@pytest.fixture
def found(tmp_path):
    """What can be seen of the data of a recipe over TEXTS: of training, and of evaluation."""
    for name, texts in (("a", TEXTS), ("b", TEXTS[:20])):
        rows = ({"text": text, "meta": {"body": "one more " + text[:8], "set": "a set"}} for text in texts)
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def found(*pairs):
        own = () if any("mixture" in pair for pair in pairs) else FOUND[:1]
        recipe = load([], [pair.format(tmp_path) for pair in (*own, *FOUND[1:], *pairs)])
        return [facts(spec) for spec in data(recipe, OneOrMore())]

    return found


def facts(spec):
    loader = spec.dataloader
    rows = [loader.dataset[index] for index in range(len(loader.dataset))]
    batch = loader.collate_fn(rows)
    eligible = int(loader.collate_fn.eligible(batch).sum())
    labels = (batch if "labels" in batch else spec.batch_transforms(batch))["labels"]
    return SimpleNamespace(
        rows=len(rows),
        longest=max(len(row["input_ids"]) for row in rows),
        labels=int((labels != -100).sum()),
        share=int((labels != -100).sum()) / eligible,
        **corrupted(loader.collate_fn, batch, labels),
        within=sum(_follow_another(row["document_ids"]) for row in rows if "document_ids" in row),
        workers=loader.num_workers,
        first={int(row["input_ids"][0]) for row in rows},
    )


def corrupted(collator, batch, labels):
    """Of the labelled tokens the shares that are masked, and that are another word."""
    if "labels" in batch:
        return {}
    ids, chosen = collator.mask(batch)["input_ids"], labels != -100
    masked = ids[chosen] == collator.mask_token
    others = ~masked & (ids[chosen] != labels[chosen])
    return {"masked": float(masked.float().mean()), "replaced": float(others.float().mean())}


def _follow_another(ids):
    """How many documents begin within a window, right behind another; 0 is the anchor."""
    return int(((ids[1:] != ids[:-1]) & (ids[:-1] > 0)).sum())


def parts(texts, fraction):
    """Documents for training and for evaluation, by a hash of their text."""
    held = [text for text in texts if zlib.crc32(text.encode()) < fraction * 2**32]
    return [text for text in texts if text not in held], held


def counts(texts, fraction):
    return tuple(map(len, parts(texts, fraction)))


def pieces(texts):
    """Pieces of 14 words, between [CLS] and [SEP]."""
    return sum(-(-len(text.split()) // 14) for text in texts)


def each(name):
    return lambda train, evaluation: (getattr(train, name), getattr(evaluation, name))


TRAIN, HELD = parts(TEXTS, 0.3)
BEFORE = counts(TEXTS, 0.3)
# The option, its pair, what is looked at, and that before and after.
DATA = {
    "source": ("data.source={}/b.jsonl", each("rows"), BEFORE, counts(TEXTS[:20], 0.3)),
    "eval_source": ("data.eval_source={}/b.jsonl", each("rows"), BEFORE, (40, 20)),
    "text_field": ("data.text_field=meta.body", each("longest"), (16, 16), (5, 5)),
    "max_seq_len": ("data.max_seq_len=12", each("longest"), (16, 16), (12, 12)),
    "long_documents": ("data.long_documents=split", each("rows"), BEFORE, (pieces(TRAIN), pieces(HELD))),
    "mlm_probability": ("data.mlm_probability=0.6", each("share"), (0.3, 0.15), (0.6, 0.15)),
    "eval_mlm_probability": ("data.eval_mlm_probability=0.5", each("share"), (0.3, 0.15), (0.3, 0.5)),
    "mask_replace_prob": (
        ["data.mask_replace_prob=0", "data.random_replace_prob=0"],
        each("masked"),
        (0.8, 0.8),
        (0, 0),
    ),
    "random_replace_prob": (
        ["data.mask_replace_prob=0", "data.random_replace_prob=1"],
        each("replaced"),
        (0.1, 0.1),
        (1, 1),
    ),
    "eval_fraction": ("data.eval_fraction=0.6", each("rows"), BEFORE, counts(TEXTS, 0.6)),
    "mixture": (
        "data.mixture=[{{source: {0}/a.jsonl, weight: 1}}, {{source: {0}/b.jsonl, weight: 1}}]",
        each("rows"),
        BEFORE,
        tuple(map(sum, zip(BEFORE, counts(TEXTS[:20], 0.3), strict=True))),
    ),
    "eval_documents": ("data.eval_documents=3", each("rows"), BEFORE, (BEFORE[0], 3)),
    "num_workers": ("data.num_workers=2", each("workers"), (0, 0), (2, 2)),
}


@pytest.mark.parametrize("option", DATA)
def test_an_option_of_masked_models(option, found):
    pairs, look, before, after = DATA[option]
    close = {"abs": 0.06 if "prob" in option else 0}
    assert look(*found()) == pytest.approx(before, **close)
    pairs = [pairs] if isinstance(pairs, str) else pairs
    assert look(*found(*pairs)) == pytest.approx(after, **close)


# The file, the pair, and the rows of training without and with the pair; None: an error without it.
FILES = {
    "split_text": ("a.txt", b"one two\n\nthree four\n", "data.split_text=line", 1, 2),
    "encoding": ("a.csv", "text\ncaf\u00e9 one\n".encode("utf-16"), "data.encoding=utf-16", None, 1),
    "deduplicate": ("a.jsonl", 2 * b'{"text": "one two"}\n', "data.deduplicate=true", 2, 1),
    "ids_field": ("a.jsonl", b'{"ids": [5, 6]}\n{"ids": [7]}\n', "data.ids_field=ids", None, 2),
    "on_bad_row": ("a.tsv", b"text\none\n\xe9\ntwo\n", "data.on_bad_row=skip", None, 2),
}


@pytest.mark.parametrize("option", FILES)
def test_an_option_of_files(option, tmp_path):
    name, content, pair, before, after = FILES[option]
    (tmp_path / name).write_bytes(content)
    held = f"data.eval_source={tmp_path / name}", f"data.source=[{tmp_path / name}]"

    def rows(*pairs):
        recipe = load([], [*held, "train.global_batch_size=1", *pairs])
        return len(data(recipe, OneOrMore())[0].dataloader.dataset)

    assert rows(pair) == after
    if before is None:
        with pytest.raises(
            DataError, match=r"^data\.source: .* (byte order mark|is not UTF-8)|has no 'text'; it has ids$"
        ):
            rows()
    else:
        assert rows() == before


def tokens(texts, tag=0, times=1, least=100, end=1):
    """Of documents, each with its end and a tag; of long ones, so many times."""
    sizes = [len(text.split()) for text in texts]
    return sum((size + end + tag) * (times if size >= least else 1) for size in sizes)


def windows(*args):
    """Windows of 15 tokens, each behind an anchor, that documents fill to the last one."""
    return -(-tokens(*args) // 15)


CAUSAL = {
    "domain_tag": (["data.domain_tag=a tag"], (windows(TRAIN, 2), windows(HELD, 2))),
    "domain_field": (["data.domain_field=meta.set"], (windows(TRAIN, 2), windows(HELD, 2))),
    "domain_format": (
        ["data.domain_field=meta.set", "data.domain_format='of {{domain}}'"],
        (windows(TRAIN, 3), windows(HELD, 3)),
    ),
    "end_of_document": (
        ["data.end_of_document=false"],
        (windows(TRAIN, 0, 1, 100, 0), windows(HELD, 0, 1, 100, 0)),
    ),
    "upsample_from": (
        ["data.upsample_from=20", "data.upsample_times=3"],
        (windows(TRAIN, 0, 3, 20), windows(HELD, 0, 3, 20)),
    ),
    "upsample_times": (
        ["data.upsample_from=30", "data.upsample_times=2"],
        (windows(TRAIN, 0, 2, 30), windows(HELD, 0, 2, 30)),
    ),
}


@pytest.mark.parametrize("option", CAUSAL)
def test_an_option_of_causal_models(option, found):
    pairs, after = CAUSAL[option]
    objective = "model.objective=causal_lm"
    assert each("rows")(*found(objective)) == (windows(TRAIN), windows(HELD))
    assert each("rows")(*found(objective, *pairs)) == after


def test_anchor_token(found):
    objective = "model.objective=causal_lm"
    assert each("first")(*found(objective)) == ({OneOrMore.cls_token_id},) * 2
    assert each("first")(*found(objective, "data.anchor_token=<start>")) == ({4},) * 2


def test_boundary_loss(found):
    """Without it the first token of a document isn't predicted from the last one of another."""
    objective = "model.objective=causal_lm"
    for texts, spec in zip((TRAIN, HELD), found(objective), strict=True):
        assert spec.within > 0
        assert spec.labels == tokens(texts)
    for texts, spec in zip((TRAIN, HELD), found(objective, "data.boundary_loss=false"), strict=True):
        assert spec.labels == tokens(texts) - spec.within


def test_no_option_of_data_is_missing_here():
    elsewhere = {
        "boundary_loss",
        "anchor_token",
        "masking",
        "stream",
        "cache_dir",
    }  # above, and tests/data/text
    elsewhere.add("other_eval")  # tests/recipe/continuing
    tables = {*DATA, *FILES, *CAUSAL, *HUB, *SHARDS, *elsewhere}
    assert tables == {f.name for f in fields(TextConfig)}
