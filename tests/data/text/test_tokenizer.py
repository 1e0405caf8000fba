"""Tokenizers: where trained ones are kept and under which name, and what is asked of transformers."""

import os
import re

import pytest
import transformers

from cadenza.data import DataError, TokenizerConfig, build_tokenizer, hub, train_wordpiece
from cadenza.data.text import tokenizer as module

TEXTS = [f"{a}{b}{c} {b}{c}{a}" for a in "abcdefgh" for b in "ijklmnop" for c in "qrstuvwxyz"]


@pytest.fixture(scope="module")
def trained():
    return train_wordpiece(TEXTS, 300)


def test_the_vocabulary_is_as_large_as_asked_for(trained):
    assert len(trained) == 300
    assert len(train_wordpiece(TEXTS, 320)) == 320
    assert trained("ai ☃")["input_ids"].count(trained.unk_token_id) == 1


@pytest.mark.parametrize(
    ("folder", "variable", "kept"),
    [("given", "variable", "given"), (None, "variable", "variable"), (None, "", ".cache/cadenza")],
)
def test_where_trained_ones_are_kept(tmp_path, monkeypatch, trained, folder, variable, kept):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CADENZA_CACHE", variable and str(tmp_path / variable))
    monkeypatch.setitem(module.TRAINERS, "wordpiece", lambda texts, vocab_size, **options: trained)
    cfg = TokenizerConfig(vocab_size=300, cache_dir=folder and f"~/{folder}")
    build_tokenizer(cfg, lambda: TEXTS)
    (path,) = (tmp_path / kept / "tokenizers").iterdir()
    assert re.fullmatch("wordpiece-300-[0-9a-f]{16}", path.name)


def test_each_text_with_each_option_has_its_own(tmp_path, monkeypatch):
    asked = []

    def train(texts, vocab_size, lowercase, strip_accents):
        asked.append((len(texts), vocab_size, lowercase, strip_accents))
        return train_wordpiece(TEXTS[:50], 300)

    monkeypatch.setitem(module.TRAINERS, "wordpiece", train)
    joined = [TEXTS[0] + TEXTS[1], *TEXTS[2:]]
    cases = [(TEXTS, 300), (TEXTS, 310), (TEXTS[:-1], 300), (joined, 300), (TEXTS, 300, True)]
    cases += [(TEXTS, 300, False, True), (TEXTS, 300, True, True)]
    cases = [(texts, size, *(*fold, False, False)[:2]) for texts, size, *fold in cases]
    for texts, size, *fold in [*cases, *cases]:
        cfg = TokenizerConfig("wordpiece", size, *fold, cache_dir=str(tmp_path))
        build_tokenizer(cfg, lambda texts=texts: texts)
    assert asked == [(len(texts), *options) for texts, *options in cases]


def test_other_documents_with_the_same_text_are_another_corpus(monkeypatch):
    digests = [
        module._digest(texts) for texts in (["ab", "c"], ["a", "bc"], ["abc"], ["abc", ""], ["c", "ab"])
    ]
    monkeypatch.setattr(module, "FORMAT", module.FORMAT + 1)
    digests.append(module._digest(["ab", "c"]))
    monkeypatch.undo()
    monkeypatch.setattr(module, "version", lambda package: f"{package} 9.9")
    digests.append(module._digest(["ab", "c"]))
    assert len(set(digests)) == len(digests)


def test_only_the_first_rank_reads_the_text(monkeypatch, trained):
    """Each rank would read its own part of a stream; tests/data/test_ranks.py hands on what is made."""
    monkeypatch.setattr(module, "from_first_rank", lambda make: trained)

    def never():
        raise AssertionError("the text is read")

    assert build_tokenizer(TokenizerConfig(vocab_size=300), never) is trained


def test_one_that_comes_second_leaves_nothing_behind(tmp_path, monkeypatch, trained):
    """What is saved appears whole, by a rename within one folder; who was first is kept."""
    folder, moved = tmp_path / "deep" / "tokenizers" / "name", []
    monkeypatch.setattr(os, "rename", lambda a, b, real=os.rename: (moved.append((a, b)), real(a, b)))
    for _ in range(2):
        module._save(trained, folder)
    assert [os.path.dirname(scratch) for scratch, _ in moved] == [str(folder.parent)] * 2
    assert [path.name for path in folder.parent.iterdir()] == ["name"]
    assert (folder / "tokenizer.json").is_file()


@pytest.fixture
def asked(monkeypatch, trained):
    """Answer `AutoTokenizer.from_pretrained`; returns what it was asked for."""
    calls = []

    def load(name, **options):
        calls.append((name, options))
        return trained

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", load)
    return calls


@pytest.mark.parametrize("answers", [True, False])
def test_the_hub_is_asked_where_it_answers(asked, monkeypatch, answers):
    monkeypatch.setattr(hub, "reachable", lambda: answers)
    build_tokenizer(TokenizerConfig(name="some/name"), list)
    assert asked == [("some/name", {"local_files_only": not answers})]


def test_folders_are_read_without_the_hub(asked, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(hub, "reachable", lambda: True)
    build_tokenizer(TokenizerConfig(name="~"), list)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    build_tokenizer(TokenizerConfig(name="mine"), list)
    assert asked == [(str(tmp_path), {"local_files_only": True}), ("mine", {"local_files_only": True})]


@pytest.mark.parametrize("name", ["./none", "/none", "~/none"])
def test_a_path_is_no_name_on_the_hub(asked, monkeypatch, tmp_path, name):
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(DataError, match=f"^tokenizer.name: there is no folder {name}$"):
        build_tokenizer(TokenizerConfig(name=name), list)
    assert asked == []


@pytest.mark.parametrize(
    ("folder", "answers", "reason"),
    [
        (False, True, "OSError: no such thing"),
        (False, False, "it isn't cached, and the Hub doesn't answer"),
        (True, False, "OSError: no such thing"),
    ],
)
def test_why_one_can_not_be_loaded(monkeypatch, tmp_path, folder, answers, reason):
    def fail(*args, **kwargs):
        raise OSError("no such\nthing")

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", fail)
    monkeypatch.setattr(hub, "reachable", lambda: answers)
    name = str(tmp_path) if folder else "some/name"
    advice = "name a folder, or wordpiece, byte_bpe or unigram to train one on the data"
    with pytest.raises(DataError, match=rf"^tokenizer.name: {name} can't be loaded \({reason}\); {advice}$"):
        build_tokenizer(TokenizerConfig(name=name), list)


def test_masked_models_need_special_tokens_and_causal_ones_none(trained, tmp_path):
    def without(*names):
        kept = {key: token for key, token in module.SPECIAL.items() if key not in names}
        folder = tmp_path / "-".join(names)
        tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=trained.backend_tokenizer, **kept)
        tokenizer.save_pretrained(folder)
        return TokenizerConfig(name=str(folder))

    build_tokenizer(without("unk_token"), list)
    for name in ("pad_token", "cls_token", "sep_token", "mask_token"):
        with pytest.raises(DataError, match=f"has no {name}; masked LM needs them all"):
            build_tokenizer(without(name), list)
    build_tokenizer(without("cls_token", "mask_token"), list, masked=False)


def test_a_cache_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").write_text("")
    cfg = TokenizerConfig(vocab_size=300, cache_dir=str(tmp_path / "file"))
    with pytest.raises(DataError, match=r"^tokenizer.cache_dir: .*file/tokenizers can't be written to"):
        build_tokenizer(cfg, lambda: ["some text"])
