"""Each document's own tag: of every kind of source, prepared or streamed, alone or in a mixture."""

import csv
import json
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from domains import FIELD, written
from words import Words

from cadenza.data import DataError, TextConfig, build_causal_dataspec, documents, train_texts
from cadenza.data.text.datasets.window_streams import WindowedStream
from cadenza.data.text.datasets.windows import WindowedDocuments
from cadenza.data.text.marks.domains import Domains, content, domain_of
from cadenza.data.text.prepared.cut import Cut
from cadenza.data.text.prepared.prepare import prepared
from cadenza.data.text.rows import Texts

ROWS = [{"text": f"w{'w' * n} two three", "meta": {"set": f"set{n % 3}"}} for n in range(20)]


class Spelled(Words):
    """A tag is the lengths of its words, behind 90: a text of n letters is 5 + n elsewhere."""

    def __call__(self, texts, **_):
        if isinstance(texts, str):
            return {"input_ids": [90 + int(texts.strip(" :")[-1])]}
        return super().__call__(texts)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CADENZA_CACHE", str(tmp_path / "cache"))


def flat(row):
    return {"text": row["text"], "set": row["meta"]["set"]}


def jsonl(folder):
    return {"source": written(folder, ROWS), "domain_field": FIELD}


def table(folder):
    with open(folder / "a.csv", "w", newline="") as sink:
        writer = csv.DictWriter(sink, ["set", "text"])
        writer.writeheader()
        writer.writerows(map(flat, ROWS))
    return {"source": str(folder / "a.csv"), "domain_field": "set"}


def columns(folder):
    parquet.write_table(pa.Table.from_pylist(ROWS), folder / "a.parquet")
    return {"source": str(folder / "a.parquet"), "domain_field": FIELD}


def a_list(folder):
    (folder / "a.json").write_text(json.dumps(ROWS))
    return {"source": str(folder / "a.json"), "domain_field": FIELD}


def config(values, **more):
    return TextConfig(**values, eval_source="python_docs", max_seq_len=16, **more)


def tags_of(example):
    """(tag, first token behind it) of each document that begins in a window."""
    ids, tagged = example["input_ids"].tolist(), example["tagged"].tolist()
    return [(ids[i], ids[i + 1]) for i in range(len(ids) - 1) if tagged[i]]


EXPECTED = Counter((90 + n % 3, 5 + 1 + n) for n in range(20))


@pytest.mark.parametrize("kind", [jsonl, table, columns, a_list])
def test_each_document_has_the_tag_of_its_domain(tmp_path, kind):
    cfg = config(kind(tmp_path))
    assert Counter((domain_of(d)[-1], content(d)) for d in documents(cfg, train=True)) == Counter(
        (row["meta"]["set"][-1], row["text"]) for row in ROWS
    )
    found = prepared(cfg, Spelled(), Cut(None), True)
    made = WindowedDocuments(found.rows, Spelled(), cfg, 0, found.rows.domains)
    seen = Counter(pair for index in range(len(made)) for pair in tags_of(made[index]))
    assert sum((EXPECTED - seen).values()) <= 3, "those that a window's end parts from their tag"
    assert not seen - EXPECTED
    assert sum(int(made[i]["tagged"].sum()) for i in range(len(made))) == 20


def test_a_stream_has_the_same_tags():
    cfg = TextConfig(max_seq_len=64, domain_field=FIELD)
    made = list(WindowedStream(Texts(ROWS, cfg), Spelled(), cfg, False))
    assert sum((Counter(pair for row in made for pair in tags_of(row)) - EXPECTED).values()) == 0
    assert sum(int(row["tagged"].sum()) for row in made) == 20


def test_a_mixture_has_tags_by_source(tmp_path):
    one, other = written(tmp_path, ROWS), written(tmp_path, [{"text": "a b c"}] * 20, "b.jsonl")
    mixture = [
        {"source": one, "weight": 1},
        {"source": other, "weight": 1, "domain_field": None, "domain_tag": "set7"},
    ]
    cfg = TextConfig(mixture=mixture, domain_field=FIELD, eval_source="python_docs", max_seq_len=64)
    spec = build_causal_dataspec(cfg, Spelled(), train=True, batch_size=1, seed=0)
    first, second = spec.dataloader.dataset.parts
    assert {tag for i in range(len(first)) for tag, _ in tags_of(first[i])} == {90, 91, 92}
    assert {tag for i in range(len(second)) for tag, _ in tags_of(second[i])} == {97}
    with pytest.raises(DataError, match=r"^data\.mixture\[1\]\.domain_tag and data\.domain_field are set"):
        TextConfig(mixture=[mixture[0], {**mixture[1], "domain_field": "set"}])
    with pytest.raises(DataError, match=r"^data\.mixture\[0\]\.text_field is None; it must be text"):
        TextConfig(mixture=[{**mixture[0], "text_field": None}])


def test_without_a_format_there_is_no_tag(tmp_path):
    cfg = config(jsonl(tmp_path), domain_format=None)
    found = prepared(cfg, Spelled(), Cut(None), True)
    made = WindowedDocuments(found.rows, Spelled(), cfg, 0, found.rows.domains)
    assert not any(bool(made[index]["tagged"].any()) for index in range(len(made)))
    with pytest.raises(DataError, match=r"^data.domain_format is 'x'; it must hold \{domain\}, or be null$"):
        TextConfig(domain_format="x")


BAD = {
    "missing": ({"text": "a"}, r"line 21 has no 'meta.set'; it has text$"),
    "a number": ({"text": "a", "meta": {"set": 3}}, r"'meta.set' of .* line 21 holds int, not text$"),
    "empty": ({"text": "a", "meta": {"set": " "}}, r"'meta.set' of .* line 21 is empty; it must name"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_row_without_a_domain_is_a_bad_row(tmp_path, case, capsys):
    row, said = BAD[case]
    source = written(tmp_path, [*ROWS, row])
    with pytest.raises(DataError, match=rf"^data\.domain_field: .*{said}"):
        documents(config({"source": source, "domain_field": FIELD}), train=True)
    cfg = config({"source": source, "domain_field": FIELD, "on_bad_row": "skip"})
    assert len(documents(cfg, train=True)) == 20
    assert "1 of 21 rows are bad and left out" in capsys.readouterr().out


def test_sources_without_fields_are_refused(tmp_path):
    (tmp_path / "a.txt").write_text("a")
    for source in (str(tmp_path / "a.txt"), "python_docs"):
        cfg = TextConfig(source=source, domain_field="set", eval_fraction=0.5)
        with pytest.raises(DataError, match=r"^data.domain_field: .* has no fields; leave it null, or set"):
            documents(cfg, train=True)
    with pytest.raises(DataError, match=r"^data\.domain_tag and data\.domain_field are set"):
        TextConfig(domain_tag="web: ", domain_field="set")


def test_the_same_text_with_other_domains_is_prepared_anew(tmp_path):
    both = [{**row, "other": "x"} for row in ROWS]
    cfgs = [config({"source": written(tmp_path, both), "domain_field": f}) for f in (None, FIELD, "other")]
    made = [prepared(cfg, Spelled(), Cut(None), True) for cfg in cfgs]
    assert len({each.folder for each in made}) == 3
    assert made[0].rows.domains is None
    assert [len(each.rows) for each in made] == [20] * 3
    assert set(made[1].rows.domains.names) == {"set0", "set1", "set2"}
    assert made[2].rows.domains.names == ["x"]
    assert list(train_texts(cfgs[1])) == [row["text"] for row in ROWS], "a tokenizer reads no tag"


def test_a_domain_for_a_window_that_is_too_small(tmp_path):
    class Long(Spelled):
        def __call__(self, texts, **_):
            return {"input_ids": [7] * 9} if isinstance(texts, str) else super().__call__(texts)

    cfg = TextConfig(max_seq_len=8, domain_field=FIELD)
    with pytest.raises(DataError, match=r"^data.domain_field: 'set0': the tag has 9 tokens; a window of 8"):
        WindowedDocuments([[5]], Long(), cfg, 0, Domains.of(["set0"]))
