"""An anchor that stands once: which token it is, in which documents it may not stand, who carries it."""

import json

import numpy as np
import pytest
from transformers import AutoTokenizer
from words import Words

from cadenza.data import DataError, TextConfig, build_causal_dataspec, documents, train_byte_bpe
from cadenza.data.text.datasets.window_streams import WindowedStream
from cadenza.data.text.marks.anchor import anchor_id, carry_anchor
from cadenza.data.text.marks.tagging import Tagging
from cadenza.data.text.rows import Texts

START = "<|im_start|>"
TEXT = ["one two three", "four five six", "seven eight"] * 8


@pytest.fixture
def tokenizer(tmp_path, monkeypatch):
    """Like Qwen's: no BOS, EOS is the padding, and tokens of chats are added."""
    monkeypatch.setenv("CADENZA_CACHE", str(tmp_path / "cache"))
    from transformers import PreTrainedTokenizerFast

    backend = train_byte_bpe(TEXT, 300).backend_tokenizer
    from tokenizers import processors

    backend.post_processor = processors.ByteLevel(trim_offsets=False)
    names = {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    found = PreTrainedTokenizerFast(tokenizer_object=backend, **names)
    found.add_special_tokens({"additional_special_tokens": [START, "<|im_end|>"]})
    return found


def written(folder, texts, name="a.jsonl"):
    (folder / name).write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return str(folder / name)


def config(folder, texts, **more):
    source = written(folder, texts)
    return TextConfig(source=source, eval_source="python_docs", max_seq_len=16, **more)


def windows(cfg, tokenizer):
    dataset = build_causal_dataspec(cfg, tokenizer, train=True, batch_size=1, seed=0).dataloader.dataset
    return [dataset[index]["input_ids"] for index in range(len(dataset))]


def test_the_anchor_stands_once_in_each_window(tmp_path, tokenizer):
    plain = windows(config(tmp_path, TEXT), tokenizer)
    assert max(int((ids == tokenizer.eos_token_id).sum()) for ids in plain) > 1, "what the option mends"
    start = tokenizer.convert_tokens_to_ids(START)
    for ids in windows(config(tmp_path, TEXT, anchor_token=START), tokenizer):
        assert (ids == start).tolist() == [True] + [False] * (len(ids) - 1)
    without_ends = windows(config(tmp_path, TEXT, end_of_document=False), tokenizer)
    assert all(int((ids == tokenizer.eos_token_id).sum()) == 1 for ids in without_ends)


@pytest.mark.parametrize(
    ("token", "said"),
    [
        ("<|none|>", r"'<\|none\|>' isn't an added token of the tokenizer; name one of .*<\|im_start\|>"),
        ("one", r"'one' isn't an added token of the tokenizer"),
        ("<|endoftext|>", r"'<\|endoftext\|>' ends each document, too; name another one, or set data.end_of"),
    ],
)
def test_a_token_that_can_not_stand_once_is_refused(tmp_path, tokenizer, token, said):
    cfg = config(tmp_path, TEXT, anchor_token=token)
    with pytest.raises(DataError, match=f"^data.anchor_token: {said}"):
        windows(cfg, tokenizer)


def test_an_end_token_is_an_anchor_where_it_ends_nothing(tmp_path, tokenizer):
    cfg = config(tmp_path, TEXT, anchor_token="<|endoftext|>", end_of_document=False)
    assert all(int((ids == tokenizer.eos_token_id).sum()) == 1 for ids in windows(cfg, tokenizer))


def test_a_document_that_holds_it_is_a_bad_row(tmp_path, tokenizer, capsys):
    texts = [*TEXT, f"a chat {START}user"]
    said = r"^data.anchor_token: .*a.jsonl line 25 holds '<\|im_start\|>'; leave it out, set data.on_bad_row"
    with pytest.raises(DataError, match=said):
        windows(config(tmp_path, texts, anchor_token=START), tokenizer)
    cfg = config(tmp_path, texts, anchor_token=START, on_bad_row="skip")
    start = tokenizer.convert_tokens_to_ids(START)
    assert all(int((ids == start).sum()) == 1 for ids in windows(cfg, tokenizer))
    assert "1 of 25 rows are bad and left out" in capsys.readouterr().out
    with pytest.raises(DataError, match=r"^data.anchor_token: a row of the stream holds"):
        list(Texts([{"text": START}], TextConfig(anchor_token=START)))
    for row in ({"text": "a", "set": START}, {"text": START, "set": "a"}):
        with pytest.raises(DataError, match=r"^data.anchor_token: a row of the stream holds"):
            list(Texts([row], TextConfig(anchor_token=START, domain_field="set")))


def test_a_text_file_that_holds_it_is_named(tmp_path):
    (tmp_path / "a.txt").write_text(f"one\n\ntwo {START}\n\nthree")
    cfg = TextConfig(eval_source=str(tmp_path / "a.txt"), split_text="paragraph", anchor_token=START)
    with pytest.raises(DataError, match=r"^data.anchor_token: .*a.txt, up to line 4, holds '<\|im_start\|>'"):
        documents(cfg, train=False)


def test_token_ids_that_hold_it_are_refused(tmp_path, tokenizer):
    start = tokenizer.convert_tokens_to_ids(START)
    ids = [[5, 6, start, 7]] * 3
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"ids": each}) + "\n" for each in ids))
    values = {"ids_field": "ids", "anchor_token": START, "max_seq_len": 16}
    cfg = TextConfig(source=str(tmp_path / "a.jsonl"), eval_source="python_docs", **values)
    said = rf"^data.anchor_token: a document holds its id, {start}; leave that document out"
    with pytest.raises(DataError, match=said):
        windows(cfg, tokenizer)
    stream = WindowedStream([np.array(each, dtype=np.int32) for each in ids], tokenizer, cfg, False)
    with pytest.raises(DataError, match=said):
        list(stream)


def test_a_tag_that_holds_it_is_refused(tokenizer):
    with pytest.raises(DataError, match=r"^data.domain_tag: the tag holds the anchor, '<\|im_start\|>'"):
        Tagging(tokenizer, TextConfig(domain_tag=f"{START}web", anchor_token=START))


def test_a_saved_tokenizer_says_which_token_it_is(tmp_path, tokenizer):
    before = tokenizer("one two")["input_ids"]
    start = tokenizer.convert_tokens_to_ids(START)
    carry_anchor(tokenizer, START).save_pretrained(tmp_path / "saved")
    again = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert anchor_id(again) == start
    assert again("one two")["input_ids"] == before, "no text gets another token for it"
    with pytest.raises(DataError, match=r"^data.anchor_token: 'x' isn't an added token"):
        carry_anchor(tokenizer, "x")


def test_ends_of_documents_are_an_option():
    given, ids = TextConfig(domain_tag=None), np.array([7, 8], dtype=np.int32)
    assert Tagging(Words(), given)(ids)[0].tolist() == [7, 8, Words.sep_token_id]
    bare = Tagging(Words(), TextConfig(end_of_document=False))
    assert bare(ids)[0].tolist() == [7, 8]
    assert bare.lengths(np.array([2])).tolist() == [2]
    assert bare.pieces(ids[:0]) == []


def test_another_end_is_another_layout_of_a_stream():
    def layout(**more):
        return WindowedStream([], Words(), TextConfig(**more), False).layout

    before = layout()
    assert {name for name, value in layout(end_of_document=False).items() if before[name] != value} == {
        "data.end_of_document"
    }
    old = {name: before[name] for name in ("data.max_seq_len", "data.upsample_times")}
    assert all(old.get(name) == value for name, value in before.items()), "an earlier checkpoint's fits"
    tagged = layout(domain_field="set")
    assert tagged["data.domain_field"] == "set"
    assert tagged["data.domain_format"] == "{domain}: "
