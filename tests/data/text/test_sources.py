"""Sources of text: what is for evaluation, and what is asked of files, the Hub and MDS."""

import json
import re
import sys
import zlib
from types import SimpleNamespace

import pytest

from cadenza.data import DataError, TextConfig, documents, hub, train_texts
from cadenza.data.text import sources
from cadenza.data.text.rows import Texts

TEXTS = [f"document {n}" for n in range(200)]


def lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def source(tmp_path):
    return lines(tmp_path / "text.jsonl", [{"text": text} for text in TEXTS])


def for_evaluation(text, fraction):
    return zlib.crc32(text.encode()) / 2**32 < fraction


@pytest.mark.parametrize("fraction", [0.05, 0.5, zlib.crc32(TEXTS[17].encode()) / 2**32])
def test_the_fraction_for_evaluation_goes_by_a_hash_of_the_text(source, fraction):
    """The last fraction is the hash of a document, which is then one to train on."""
    cfg = TextConfig(source=source, eval_fraction=fraction)
    assert documents(cfg, train=False) == [text for text in TEXTS if for_evaluation(text, fraction)]
    assert documents(cfg, train=True) == [text for text in TEXTS if not for_evaluation(text, fraction)]


@pytest.mark.parametrize("apart", [False, True])
def test_evaluation_alone_is_capped(source, apart):
    cfg = TextConfig(source=source, eval_fraction=0.5, eval_source=source if apart else None)
    whole = [documents(cfg, train) for train in (True, False)]
    cfg.eval_documents = 3
    assert documents(cfg, train=True) == whole[0]
    assert documents(cfg, train=False) == whole[1][:3] != whole[1]
    assert len(whole[0]) == (200 if apart else 200 - len(whole[1]))


def test_a_tokenizer_is_trained_on_the_first_training_documents(source, monkeypatch):
    cfg = TextConfig(source=source, eval_fraction=0.5)
    train = documents(cfg, train=True)
    assert list(train_texts(cfg)) == train
    assert list(train_texts(cfg, limit=3)) == train[:3]
    monkeypatch.setattr(sources, "_of_part", lambda cfg, train, *more: map(str, range(100_010)))
    assert sum(1 for _ in train_texts(cfg)) == 100_000


def test_python_docs_by_its_name(monkeypatch, source):
    monkeypatch.setattr("cadenza.data.text.python_docs.python_docs", lambda: ("a", "b"))
    assert documents(TextConfig(eval_source=source), train=True) == ["a", "b"]
    assert documents(TextConfig(source=source, eval_source="python_docs"), train=False) == ["a", "b"]


def test_patterns_go_into_folders_and_start_at_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    lines(tmp_path / "a/b/2.jsonl", [{"text": "two"}])
    lines(tmp_path / "a/1.jsonl", [{"text": "one"}])
    cfg = TextConfig(source="~/**/*.jsonl", eval_source="~/a/b/*.jsonl")
    assert documents(cfg, train=True) == ["one", "two"]
    assert documents(cfg, train=False) == ["two"]


@pytest.mark.parametrize("name", ["c4", "some/set", "mds"])
def test_evaluation_text_of_its_own_is_finite(source, name):
    cfg = TextConfig(source=source, eval_source=name)
    said = rf"^data.eval_source: {name} is neither python_docs nor a file, a folder or a glob$"
    with pytest.raises(DataError, match=said):
        documents(cfg, train=False)
    assert len(documents(cfg, train=True)) == 200


@pytest.mark.parametrize("row", [[1], 3])
def test_rows_that_are_no_objects_are_refused(tmp_path, row):
    path = lines(tmp_path / "a.jsonl", [{"text": "a"}, row])
    message = rf"{path} line 2 is of type {type(row).__name__}; it must be an object with fields$"
    with pytest.raises(DataError, match="^data.source: " + message):
        documents(TextConfig(source=path), train=True)
    with pytest.raises(DataError, match="^data.eval_source: " + message):
        documents(TextConfig(eval_source=path), train=False)


def test_rows_without_the_field_say_what_they_have(tmp_path):
    path = lines(tmp_path / "a.jsonl", [{"text": "a"}, {"body": 1, "id": 2}])
    with pytest.raises(DataError, match=rf"^data.text_field: {path} line 2 has no 'text'; it has body, id$"):
        documents(TextConfig(source=path), train=True)


def test_empty_and_broken_files_name_the_key(tmp_path):
    path = lines(tmp_path / "a.jsonl", [])
    with pytest.raises(DataError, match=rf"^data.eval_source: {path} holds no text$"):
        documents(TextConfig(eval_source=path), train=False)
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n{\n')
    with pytest.raises(DataError, match=rf"^data.eval_source: {path} line 2 is not JSON \("):
        documents(TextConfig(eval_source=path), train=False)
    with pytest.raises(DataError, match=r"^data.eval_source: no file matches .*none.txt$"):
        documents(TextConfig(eval_source=str(tmp_path / "none.txt")), train=False)


class Rows:
    """A stream of rows that notes what is done with it."""

    def __init__(self, rows, done):
        self.rows, self.done = rows, done

    def __iter__(self):
        return iter(self.rows)

    def shuffle(self, seed, buffer_size):
        self.done.append(("shuffle", seed, buffer_size))
        return self

    def take(self, count):
        self.done.append(("take", count))
        return Rows(self.rows[:count], self.done)

    def set_epoch(self, epoch):
        self.done.append(("epoch", epoch))


@pytest.fixture
def asked(monkeypatch):
    """Answer `load_dataset` with five rows, as rank 2 of 3; what was asked for, and what was done with it."""
    import datasets.distributed
    from composer.utils import dist

    calls, done = [], []

    def load(*args, **kwargs):
        calls.append((args, kwargs))
        return Rows([{"text": f"t{n}", "body": f"b{n}"} for n in range(5)], done)

    def split(rows, rank, world_size):
        done.append(("split", rank, world_size))
        return rows

    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.setattr(datasets.distributed, "split_dataset_by_node", split)
    monkeypatch.setattr(hub, "reachable", lambda: True)
    monkeypatch.setattr(dist, "get_global_rank", lambda: 2)
    monkeypatch.setattr(dist, "get_world_size", lambda: 3)
    return calls, done


@pytest.mark.parametrize(
    ("values", "train", "name", "split"),
    [
        ({"source": "c4"}, True, ("allenai/c4", "en"), "train"),
        ({"source": "c4", "subset": "de", "split": "first"}, True, ("allenai/c4", "de"), "first"),
        ({"source": "c4"}, False, ("allenai/c4", "en"), "validation"),
        ({"source": "a/b", "eval_split": "test"}, False, ("a/b", None), "test"),
        ({"source": "a/b", "subset": "x", "text_field": "body"}, True, ("a/b", "x"), "train"),
    ],
)
def test_what_is_asked_of_the_hub(asked, values, train, name, split):
    texts = documents(TextConfig(**values), train)
    assert asked[0] == [(name, {"split": split, "streaming": True})]
    letter = values.get("text_field", "text")[0]
    assert list(texts) == [f"{letter}{n}" for n in range(5)]


def test_streams_are_shuffled_to_train_capped_to_evaluate_and_split_among_ranks(asked):
    done, place = asked[1], ("split", 2, 3)
    cfg = TextConfig(source="a/b", shuffle_buffer=77, eval_documents=3)
    documents(cfg, train=True, seed=9)
    documents(cfg, train=True)
    assert done == [("shuffle", 9, 77), place, ("shuffle", 0, 77), place]
    done.clear()
    assert list(documents(cfg, train=False, seed=9)) == ["t0", "t1", "t2"]
    assert len(list(documents(TextConfig(source="a/b"), train=False))) == 5
    assert done == [("take", 3), place, place]
    documents(cfg, train=False).set_epoch(4)
    assert done[-1] == ("epoch", 4)


def test_what_is_wrong_with_a_hub_set_is_said(asked, monkeypatch):
    import datasets

    advice = "check the name and the network, or set data.source to python_docs or to local files"
    with pytest.raises(DataError, match=r"^data.text_field: a/b has no 'x'; it has text, body$"):
        documents(TextConfig(source="a/b", text_field="x"), train=True)
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **kwargs: Rows([], []))
    with pytest.raises(DataError, match=rf"data set 'a/b' can't be read \(StopIteration: \); {advice}$"):
        documents(TextConfig(source="a/b"), train=True)
    monkeypatch.setattr(hub, "reachable", lambda: False)
    with pytest.raises(DataError, match=f"'a/b' can't be reached: the Hub doesn't answer; {advice}$"):
        documents(TextConfig(source="a/b"), train=True)


def test_every_row_of_a_stream_is_checked():
    texts = Texts([{"text": "a"}, {"body": "b"}], TextConfig())
    with pytest.raises(DataError, match=r"a row of the stream has no 'text'; it has body$"):
        list(texts)
    with pytest.raises(DataError, match=r"'text' of a row of the stream holds int, not text$"):
        list(Texts([{"text": 5}], TextConfig()))
    texts.set_epoch(3)  # rows that know no epoch are left as they are


@pytest.fixture
def shards(monkeypatch):
    """In the place of mosaicml-streaming: notes what its data set is made with."""
    made = []

    def dataset(**options):
        made.append(options)
        if options["split"] == "broken":
            raise OSError("no index")
        return [{"text": "a"}]

    monkeypatch.setitem(sys.modules, "streaming", SimpleNamespace(StreamingDataset=dataset))
    return made


def test_what_is_asked_of_mds(shards):
    """Shuffled as MosaicBERT's recipe does it; evaluation in order."""
    place = {"remote": "s3://far", "local": "/near", "batch_size": 1}
    cfg = TextConfig(source="mds", remote="s3://far", local="/near", split="first", eval_split="last")
    assert list(documents(cfg, train=True, seed=9)) == ["a"]
    assert list(documents(cfg, train=False, seed=9)) == ["a"]
    shuffle = {"shuffle": True, "shuffle_algo": "py1s", "shuffle_seed": 9, "num_canonical_nodes": 128}
    assert shards == [{**place, "split": "first", **shuffle}, {**place, "split": "last"}]


@pytest.mark.parametrize(
    ("where", "named"), [({"remote": "far"}, "far"), ({"local": "near"}, "near"), ({}, None)]
)
def test_mds_needs_one_folder_at_least(shards, where, named):
    cfg = TextConfig(source="mds", split="broken", **where)
    said = f"mds at {named}, split broken, can't be read (no index)"
    said = said if named else "mds needs data.remote or data.local, the folder of the shards"
    with pytest.raises(DataError, match=f"^data.source: {re.escape(said)}$"):
        documents(cfg, train=True)


def test_without_repeats_the_first_of_each_text_stays(tmp_path):
    texts = ["b", "a", "b", "c", "a", "B"]
    path = lines(tmp_path / "repeats.jsonl", [{"text": text} for text in texts])
    given = {"source": path, "eval_source": path}
    assert documents(TextConfig(**given), train=True) == texts
    assert documents(TextConfig(**given, deduplicate=True), train=True) == ["b", "a", "c", "B"]
    with pytest.raises(DataError, match=r"data\.deduplicate needs a source that is read as a whole; mds is"):
        documents(TextConfig(source="mds", local="x", deduplicate=True), train=True)
