"""Token ids on disk: equal to those of the text, made once, anew after a change, resumed after a kill."""

import json
import os
import shutil

import numpy as np
import pyarrow as pa
import pytest
from datasets import Dataset
from words import texts, tokenized

from cadenza.data import DataError, TextConfig, documents, train_byte_bpe, train_wordpiece
from cadenza.data.text.prepared import journal, prepare
from cadenza.data.text.prepared.cut import Cut
from cadenza.data.text.prepared.key import tokenizer_digest
from cadenza.data.text.prepared.prepare import prepared

CUT = Cut(14)


@pytest.fixture(scope="module")
def tokenizer():
    return train_wordpiece(texts(100), 300)


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "text.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts(300)))
    return TextConfig(source=str(path), eval_fraction=0.3)


@pytest.fixture
def made(monkeypatch):
    """The texts that were tokenized."""
    seen = []

    class Counted(prepare.Encoder):
        def _encoded(self, batch):
            seen.extend(batch)
            return super()._encoded(batch)

    monkeypatch.setattr(prepare, "Encoder", Counted)
    return seen


@pytest.mark.parametrize("cut", [Cut(14), Cut(14, split=True), Cut(None)])
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("step", [1, 500, 4 << 20])
def test_the_rows_are_those_of_the_documents(corpus, tokenizer, cut, train, step, monkeypatch):
    monkeypatch.setattr(journal, "STEP", step)
    found = prepared(corpus, tokenizer, cut, train)
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in documents(corpus, train)]
    body = cut.body or 10**9
    plain = [row[n : n + body] for row in ids for n in (range(0, len(row), body) if cut.split else (0,))]
    assert [row.tolist() for row in found.rows] == plain
    assert found.rows.lengths.tolist() == [len(row) for row in plain]
    assert found.documents == len(ids)
    assert [row.tolist() for row in found.rows[3:9]] == plain[3:9]
    with pytest.raises(IndexError):
        found.rows[len(plain)]


def test_both_parts_are_made_at_once_and_only_once(corpus, tokenizer, made):
    first = prepared(corpus, tokenizer, CUT, True)
    assert len(made) == 300
    assert len(prepared(corpus, tokenizer, CUT, False).rows) + len(first.rows) == 300
    assert prepared(corpus, tokenizer, CUT, True).folder == first.folder
    assert len(made) == 300


def changed_file(corpus, tokenizer):
    os.utime(corpus.source, (1, 1))
    return corpus, tokenizer, CUT


def other(**options):
    return lambda corpus, tokenizer: (TextConfig(**{**vars(corpus), **options}), tokenizer, CUT)


@pytest.mark.parametrize(
    "change",
    [
        changed_file,
        other(eval_fraction=0.4),
        other(on_bad_row="skip"),
        other(deduplicate=True),
        lambda corpus, tokenizer: (corpus, train_byte_bpe(["a"], 300), CUT),
        lambda corpus, tokenizer: (corpus, train_wordpiece(texts(99), 300), CUT),
        lambda corpus, tokenizer: (corpus, tokenizer, Cut(15)),
        lambda corpus, tokenizer: (corpus, tokenizer, Cut(14, split=True)),
    ],
)
def test_a_change_is_seen(corpus, tokenizer, change, made):
    first = prepared(corpus, tokenizer, CUT, True).folder
    assert prepared(*change(corpus, tokenizer), True).folder != first
    assert len(made) >= 560, "all texts again, but for those that deduplication leaves out"


def test_what_does_not_change_rows_prepares_nothing(corpus, tokenizer, made):
    prepared(corpus, tokenizer, CUT, True)
    for change in ({"eval_documents": 3}, {"mlm_probability": 0.2}, {"num_workers": 2}):
        prepared(TextConfig(**{**vars(corpus), **change}), tokenizer, CUT, False)
    assert len(made) == 300


def test_special_tokens_of_a_tokenizer_count(tokenizer):
    other = train_wordpiece(texts(100), 300)
    assert tokenizer_digest(other) == tokenizer_digest(tokenizer)
    other(["some text"], padding="max_length", max_length=7, truncation=True)
    assert tokenizer_digest(other) == tokenizer_digest(tokenizer), "of a call alone"
    other.backend_tokenizer.normalizer = None
    assert tokenizer_digest(other) != tokenizer_digest(tokenizer)


def test_evaluation_takes_the_first_documents(corpus, tokenizer):
    whole = prepared(corpus, tokenizer, Cut(14, split=True), False)
    corpus.eval_documents = 5
    part = prepared(corpus, tokenizer, Cut(14, split=True), False)
    count = sum(
        -(-len(tokenizer(t, add_special_tokens=False)["input_ids"]) // 14) for t in documents(corpus, False)
    )
    assert part.documents == 5
    assert [row.tolist() for row in part.rows] == [row.tolist() for row in whole.rows[:count]]
    assert count < len(whole.rows)


def test_other_programs_read_the_files(corpus, tokenizer):
    found = prepared(corpus, tokenizer, CUT, True)
    rows = [row.tolist() for row in found.rows]
    assert Dataset.from_file(str(found.rows.paths[0]))["input_ids"][:] == rows
    with pa.ipc.open_stream(str(found.rows.paths[0])) as stream:
        assert stream.read_all()["input_ids"].to_pylist() == rows


def test_the_second_start_says_again_which_rows_are_left_out(tmp_path, tokenizer, capsys):
    (tmp_path / "a.jsonl").write_text('{"text": "w"}\n{}\n')
    cfg = TextConfig(source=str(tmp_path / "a.jsonl"), eval_source="python_docs", on_bad_row="skip")
    for _ in range(2):
        prepared(cfg, tokenizer, CUT, True)
        assert "1 of 2 rows are bad and left out" in capsys.readouterr().out


class Killed(BaseException):
    """In the place of a process that is killed."""


@pytest.mark.parametrize("moment", range(0, 300, 30))
def test_stopped_at_any_moment_it_goes_on_and_ends_the_same(corpus, tokenizer, moment, made, monkeypatch):
    monkeypatch.setattr(journal, "STEP", 400)
    monkeypatch.setattr("cadenza.data.text.encoding.BATCH", 7)
    whole = prepared(corpus, tokenizer, CUT, True)
    expected, files = [row.tolist() for row in whole.rows], sorted(p.name for p in whole.folder.iterdir())
    assert len(files) > 10
    shutil.rmtree(whole.folder)
    made.clear()
    kill_at_write(monkeypatch, moment // 30 + 1)
    with pytest.raises(Killed):
        prepared(corpus, tokenizer, CUT, True)
    monkeypatch.undo()
    first = len(made)
    assert not whole.folder.exists(), "nothing half made is taken for whole"
    monkeypatch.setattr(journal, "STEP", 400)
    again = prepared(corpus, tokenizer, CUT, True)
    assert [row.tolist() for row in again.rows] == expected
    assert sorted(p.name for p in again.folder.iterdir()) == files
    assert first > 0


def kill_at_write(monkeypatch, count):
    """Raise at the write of this number, half of which stands on the disk."""
    left, write = [count], journal.write

    def broken(path, rows, numbers, domains):
        left[0] -= 1
        if left[0] == 0:
            path.with_suffix(".writing").write_bytes(b"half")
            raise Killed
        write(path, rows, numbers, domains)

    monkeypatch.setattr(journal, "write", broken)


def test_what_was_prepared_before_is_not_tokenized_again(corpus, tokenizer, made, monkeypatch):
    monkeypatch.setattr(journal, "STEP", 400)
    monkeypatch.setattr("cadenza.data.text.encoding.BATCH", 7)
    kill_at_write(monkeypatch, 12)
    with pytest.raises(Killed):
        prepared(corpus, tokenizer, CUT, True)
    monkeypatch.setattr(journal, "write", journal_write)
    first = len(made)
    prepared(corpus, tokenizer, CUT, True)
    assert 300 <= len(made) < 300 + 60 < 300 + first


journal_write = journal.write


def test_an_error_in_the_text_leaves_nothing_behind(corpus, tokenizer, tmp_path):
    with open(corpus.source, "a") as file:
        file.write("nothing\n")
    (tmp_path / "cache").mkdir()
    corpus.cache_dir = str(tmp_path / "cache")
    with pytest.raises(DataError, match="line 301 is not JSON"):
        prepared(corpus, tokenizer, CUT, True)
    folder = tmp_path / "cache/prepared"
    assert [path.suffix for path in folder.iterdir()] == [".lock"]


def test_a_file_that_changes_while_it_is_read(corpus, tokenizer, monkeypatch):
    class Touching(prepare.Encoder):
        def _encoded(self, batch):
            os.utime(corpus.source, (1, 1))
            return super()._encoded(batch)

    monkeypatch.setattr(prepare, "Encoder", Touching)
    said = rf"^data.source: {corpus.source} has changed while it was read; start again$"
    with pytest.raises(DataError, match=said):
        prepared(corpus, tokenizer, CUT, True)
    monkeypatch.undo()


def test_a_full_disk_is_called_that_and_loses_nothing(corpus, tokenizer, made, monkeypatch):
    monkeypatch.setattr(journal, "STEP", 400)
    monkeypatch.setattr("cadenza.data.text.encoding.BATCH", 7)
    left = [3]

    def full(path, rows, numbers, domains):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        journal_write(path, rows, numbers, domains)

    monkeypatch.setattr(journal, "write", full)
    with pytest.raises(DataError, match=r"^data.cache_dir: .*\.unfinished: the disk is full$"):
        prepared(corpus, tokenizer, CUT, True)
    monkeypatch.setattr(journal, "write", journal_write)
    first = len(made)
    assert (
        len(prepared(corpus, tokenizer, CUT, True).rows) + len(prepared(corpus, tokenizer, CUT, False).rows)
        == 300
    )
    assert len(made) < 300 + first


def test_all_cores_tokenize_and_processes_that_load_use_no_threads(corpus, tokenizer, monkeypatch):
    seen = []

    class Noting(prepare.Encoder):
        def _encoded(self, batch):
            seen.append(os.environ["TOKENIZERS_PARALLELISM"])
            return super()._encoded(batch)

    monkeypatch.setattr(prepare, "Encoder", Noting)
    for before in ("false", None):
        if before is None:
            monkeypatch.delenv("TOKENIZERS_PARALLELISM")
        prepared(corpus, tokenizer, Cut(9 if before else 8), True)
        assert os.environ.get("TOKENIZERS_PARALLELISM") == before
    assert set(seen) == {"true"}


def test_a_cache_that_cannot_be_written_to(corpus, tokenizer, tmp_path):
    (tmp_path / "file").write_text("")
    corpus.cache_dir = str(tmp_path / "file")
    with pytest.raises(DataError, match=r"^data.cache_dir: .*file/prepared can't be written to"):
        prepared(corpus, tokenizer, CUT, True)


@pytest.mark.parametrize("name", ["prepared.json", "train-00000.arrow"])
@pytest.mark.parametrize("content", [b"", b"{", None])
def test_a_damaged_folder_is_named(corpus, tokenizer, name, content):
    folder = prepared(corpus, tokenizer, CUT, True).folder
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
    with pytest.raises(
        DataError, match=rf"^data.cache_dir: {folder} (is damaged .*|isn't whole); remove it$"
    ):
        prepared(corpus, tokenizer, CUT, True)


def test_a_link_that_leads_nowhere(tokenizer, tmp_path):
    (tmp_path / "a.txt").symlink_to(tmp_path / "gone.txt")
    cfg = TextConfig(source=str(tmp_path / "a.txt"))
    with pytest.raises(DataError, match=r"^data.source: .*/a.txt can't be read \(FileNotFoundError"):
        prepared(cfg, tokenizer, CUT, True)


def test_rows_reach_processes_that_load(corpus, tokenizer):
    import pickle

    rows = prepared(corpus, tokenizer, CUT, True).rows
    sent = pickle.dumps(tokenized([], tokenizer, 16).__class__(rows, tokenizer).rows)
    assert len(sent) < 1000, "the paths alone"
    assert all(np.array_equal(a, b) for a, b in zip(pickle.loads(sent), rows, strict=True))
