"""The command line on text as it lies about: trained on, or refused in one line before training."""

import gzip
import json

import pytest

RECIPE = """
name: tiny
model: {config: {hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 16}}
tokenizer: {vocab_size: 300}
data: {max_seq_len: 32, eval_fraction: 0.2}
train: {global_batch_size: 8, max_duration: 1ba, eval_interval: 1dur, progress_bar: false}
"""
LINES = [json.dumps({"text": f"the cat {n} sat on the mat"}) for n in range(60)]
TEXT = "\n".join(LINES) + "\n"
THAI = "สวัสดีครับวันนี้อากาศดีมากและผมอยากไปเที่ยวทะเลกับเพื่อนของผม"


@pytest.fixture
def played(main, tmp_path, monkeypatch, capsys):
    """The exit code of a run on a file of this content, and what is printed."""
    monkeypatch.setenv("CADENZA_CACHE", str(tmp_path / "cache"))
    (tmp_path / "tiny.yaml").write_text(RECIPE)

    def played(name, content, *more):
        (tmp_path / name).write_bytes(content)
        pairs = [f"data.source={tmp_path / name}", f"train.run_folder={tmp_path / 'runs'}"]
        return main([str(tmp_path / "tiny.yaml"), *pairs, *more]), capsys.readouterr()

    return played


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", TEXT.encode() + b'{"text": "\\ud83d"}\n', "a.jsonl line 61 holds half a character"),
        ("a.jsonl", TEXT.encode() + '{"text": "\u00e9"}'.encode("latin-1"), "a.jsonl line 61 is not UTF-8"),
        (
            "a.jsonl.gz",
            gzip.compress(TEXT.encode(), mtime=0)[:-9],
            "a.jsonl.gz is cut short or no gzip file after line",
        ),
        ("a.parquet", b"PAR1?", "a.parquet can't be read as parquet after row 0"),
        ("a.jsonl", b"", "a.jsonl holds no text"),
        ("a.txt", b"\0\1\2", "a.txt line 1 holds a NUL byte"),
    ],
    ids=["surrogate", "latin-1", "cut", "parquet", "empty", "binary"],
)
def test_text_that_can_not_be_read_ends_before_training(played, tmp_path, name, content, said):
    code, shown = played(name, content)
    (error,) = (line for line in shown.err.splitlines() if line.startswith("error: "))
    assert (code, said in error) == (2, True), error
    assert "Traceback" not in shown.err
    assert not [path for path in (tmp_path / "runs").rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("bom.jsonl", b"\xef\xbb\xbf" + TEXT.encode()),
        ("blank.jsonl", TEXT.replace("\n", "\r\n\r\n").encode()),
        ("c4-train.00000-of-01024.json.gz", gzip.compress(TEXT.encode(), mtime=0)),
    ],
    ids=["mark", "blank", "c4"],
)
def test_harmless_forms_are_read(played, name, content):
    code, shown = played(name, content, "--dry-run")
    assert (code, "parameters: " in shown.out) == (0, True), shown.err


@pytest.mark.slow
def test_text_without_spaces_trains(played):
    lines = (json.dumps({"text": THAI[n % 20 :] + THAI * 3 + str(n)}) + "\n" for n in range(80))
    code, shown = played("thai.jsonl", "".join(lines).encode())
    assert code == 0, shown.err
    assert "masked-token cross-entropy" in shown.out
    assert "unknown to the tokenizer" not in shown.out


def test_what_the_tokenizer_does_not_know_is_said(played, tmp_path):
    (tmp_path / "other.jsonl").write_text('{"text": "the cat sat on the m\u00e4t"}\n' * 8)
    pair = f"data.eval_source={tmp_path}/other.jsonl"
    code, shown = played("a.jsonl", TEXT.encode(), "--dry-run", pair)
    assert code == 0, shown.err
    assert "unknown to the tokenizer ([UNK]): 16.67% of the tokens for evaluation\n" in shown.out
    (tmp_path / "other.jsonl").write_text(json.dumps({"text": THAI}) + "\n")
    code, shown = played("a.jsonl", TEXT.encode(), pair)
    assert code == 2
    assert "error: tokenizer.name: 100% of the tokens of the first 1 documents are [UNK]" in shown.err
