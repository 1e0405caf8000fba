"""Documents that are token ids already: taken as they are, of every kind of source, or refused."""

import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from cadenza.data import (
    DataError,
    TextConfig,
    build_causal_dataspec,
    build_dataspec,
    documents,
    train_texts,
    train_wordpiece,
)
from cadenza.data.text.rows import Texts

DOCUMENTS = [[7, 8, 9], [10, 11], [], [12, 13, 14, 15, 16]]


@pytest.fixture(scope="module")
def tokenizer():
    """[PAD] 0, [UNK] 1, [CLS] 2, [SEP] 3, [MASK] 4, and words from 5 on."""
    return train_wordpiece(["one two three four five six seven"], 300)


def jsonl(path, rows):
    path.write_text("".join(json.dumps({"ids": row}) + "\n" for row in rows))


def table(kind):
    def written(path, rows):
        ids = pa.table({"ids": pa.array(rows, pa.list_(pa.int64()))})
        if kind == "parquet":
            parquet.write_table(ids, path)
        else:
            with pa.ipc.new_file(path, ids.schema) as file:
                file.write_table(ids)

    return written


WRITERS = {"jsonl": jsonl, "parquet": table("parquet"), "arrow": table("arrow")}


def config(tmp_path, kind="jsonl", rows=DOCUMENTS, **options):
    path = tmp_path / f"a.{kind}"
    WRITERS[kind](path, rows)
    return TextConfig(source=str(path), eval_source=str(path), ids_field="ids", **options)


def rows_of(spec):
    return [spec.dataloader.dataset[n]["input_ids"].tolist() for n in range(len(spec.dataloader.dataset))]


@pytest.mark.parametrize("kind", WRITERS)
def test_they_are_taken_as_they_are(kind, tmp_path, tokenizer):
    cfg = config(tmp_path, kind, max_seq_len=6)
    assert [ids.tolist() for ids in documents(cfg, train=True)] == DOCUMENTS
    spec = build_dataspec(cfg, tokenizer, train=False, batch_size=1, seed=0)
    assert rows_of(spec) == [[2, *ids[:4], 3] for ids in DOCUMENTS if ids]
    causal = build_causal_dataspec(cfg, tokenizer, train=False, batch_size=1, seed=0)
    found = [id for row in rows_of(causal) for id in row]
    anchors_and_ends = [2] * len(rows_of(causal)) + [3] * 3
    assert sorted(found) == sorted([*anchors_and_ends, *(id for row in DOCUMENTS for id in row)])


def test_special_tokens_around_a_document_are_not_doubled(tmp_path, tokenizer):
    cfg = config(tmp_path, rows=[[2, 7, 8, 3], [2], [2, 3], [9, 3], [10, 3, 11]])
    spec = build_dataspec(cfg, tokenizer, train=False, batch_size=1, seed=0)
    assert rows_of(spec) == [[2, 7, 8, 3], [2, 9, 3], [2, 10, 3, 11, 3]]


def test_ids_of_another_tokenizer_are_refused(tmp_path, tokenizer):
    cfg = config(tmp_path, rows=[[7], [5000]])
    size = max(tokenizer.get_vocab().values()) + 1
    said = rf"^data.ids_field: there is the id 5000, but the tokenizer has {size} words; name the"
    with pytest.raises(DataError, match=said):
        build_dataspec(cfg, tokenizer, train=False, batch_size=1, seed=0)


@pytest.mark.parametrize("row", [["a"], [1.5], [-1], [[1, 2]], [[1, 2], [3]], "text", [2**31], [True]])
def test_a_row_that_holds_something_else(row, tmp_path):
    cfg = config(tmp_path, rows=[[7], row])
    said = (
        f"data.ids_field: 'ids' of {tmp_path}/a.jsonl line 2 holds no list of token ids, integers from 0 on"
    )
    with pytest.raises(DataError, match=f"^{re.escape(said)}$"):
        documents(cfg, train=True)
    cfg.on_bad_row = "skip"
    assert len(documents(cfg, train=True)) == 1


def test_what_cannot_hold_ids(tmp_path):
    (tmp_path / "a.txt").write_text("1 2 3")
    cfg = TextConfig(source=str(tmp_path / "a.txt"), ids_field="ids")
    with pytest.raises(DataError, match=r"^data.ids_field: .*a.txt holds text alone; token ids are read of"):
        documents(cfg, train=True)
    with pytest.raises(DataError, match="ids have no text to train a tokenizer on; name the one they are of"):
        list(train_texts(cfg))


def test_ids_of_a_stream():
    rows = [{"ids": np.array([7, 8], dtype=np.int64)}, {"ids": [9]}]
    found = Texts(rows, TextConfig(ids_field="ids"))
    assert [ids.tolist() for ids in found] == [[7, 8], [9]]


def test_shards_of_ids(tmp_path, tokenizer):
    streaming = pytest.importorskip("streaming", reason="NOT VERIFIED HERE: needs mosaicml-streaming")
    options = {"columns": {"ids": "ndarray:int32"}}
    with streaming.MDSWriter(out=str(tmp_path / "mds/val"), **options) as writer:
        for n in range(20):
            writer.write({"ids": np.arange(7, 9 + n % 3, dtype=np.int32)})
    cfg = TextConfig(source="mds", local=str(tmp_path / "mds"), eval_split="val", ids_field="ids")
    spec = build_dataspec(cfg, tokenizer, train=False, batch_size=4, seed=0)
    batches = [batch["input_ids"].tolist() for batch in spec.dataloader]
    assert sum(map(len, batches)) == 20
    assert batches[0][0][:4] == [2, 7, 8, 3]
