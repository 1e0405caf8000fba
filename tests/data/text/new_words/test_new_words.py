"""New words in a tokenizer: found in a text, kept by its files, and split into pieces before."""

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from cadenza.data import DataError, train_byte_bpe, train_wordpiece
from cadenza.data.text.new_words import extended, listed
from cadenza.data.text.tokenizer_config import TokenizerConfig

TEXTS = ["the cat sat on the mat", "a dog ran (c-o-v-i-d) Cov x 19", "un to go ed ing"] * 20


def unigram(before):
    """As SentencePiece's: spaces are marked by a pre-tokenizer as of T5, or a normalizer as of Llama 2."""
    plain = Tokenizer(models.Unigram())
    if before:
        plain.pre_tokenizer = pre_tokenizers.Metaspace()
    else:
        marks = [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
        plain.normalizer = normalizers.Sequence(marks)
    special = {"unk_token": "<unk>", "pad_token": "<pad>"}
    options = {"vocab_size": 60, "special_tokens": list(special.values()), "show_progress": False}
    plain.train_from_iterator(TEXTS, trainers.UnigramTrainer(unk_token="<unk>", **options))
    plain.decoder = decoders.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=plain, **special)


KINDS = {
    "wordpiece": lambda: train_wordpiece(TEXTS, 300, lowercase=True),
    "byte_bpe": lambda: train_byte_bpe(TEXTS, 300),
    "metaspace": lambda: unigram(before=True),
    "prepended": lambda: unigram(before=False),
}
WORDS = ["covid", "catmat", "19-covid", "\u0928\u092e"]


def ids(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_word_is_one_token_in_a_text_and_its_pieces_are_those_before(kind):
    old = KINDS[kind]()
    new, pieces = extended(old, WORDS)
    assert len(new) == len(old) + len(WORDS)
    assert list(pieces) == [new.get_vocab()[token] for token in map(new.convert_ids_to_tokens, pieces)]
    for (number, before), word in zip(pieces.items(), WORDS, strict=True):
        assert before == ids(old, word)
        assert number >= len(old)
        for text in (f"a {word} cat", f"({word})", f"{word}, the", word):
            assert ids(new, text).count(number) == 1, text
        for text in (f"{word}ed", f"un{word}"):
            assert number not in ids(new, text), text


@pytest.mark.parametrize("kind", KINDS)
def test_text_without_new_words_is_split_as_before(kind):
    old = KINDS[kind]()
    new, _ = extended(old, WORDS)
    for text in (*TEXTS[:3], "covidcat", "the  cat\n sat, x"):
        assert ids(new, text) == ids(old, text)
    assert "covid" not in old.get_vocab(), "the first one isn't changed"


@pytest.mark.parametrize("kind", KINDS)
def test_its_files_keep_the_words(kind, tmp_path):
    new, _ = extended(KINDS[kind](), WORDS)
    new.save_pretrained(tmp_path)
    again = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    text = "a covid cat, Covid (19-covid)"
    assert again.get_vocab() == new.get_vocab()
    assert ids(again, text) == ids(new, text)


def test_lower_case_tokenizers_find_a_word_in_any_case():
    new, pieces = extended(KINDS["wordpiece"](), ["Covid"])
    assert ids(new, "a COVID covid Covid") == [ids(new, "a")[0], *[next(iter(pieces))] * 3]
    new, pieces = extended(KINDS["byte_bpe"](), ["Covid"])
    assert ids(new, "a COVID covid Covid").count(next(iter(pieces))) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["covid", "cat"], "'cat' is in the tokenizer already; leave it out"),
        (["[MASK]"], r"'\[MASK\]' is in the tokenizer already"),
        (["THE", "cat", "sat", "mat", "dog", "go"], "'THE', 'cat', 'sat', 'mat', 'dog' and 1 more is in the"),
        (["covid", "Covid"], "'[Cc]ovid' isn't found in a text as a word of its own; leave out what differs"),
    ],
)
def test_words_that_cannot_be_added(words, said):
    with pytest.raises(DataError, match=f"^tokenizer.new_tokens: {said}"):
        extended(KINDS["wordpiece"](), words)


def test_a_word_behind_a_space_is_known():
    """Byte-level BPE has another token for it than at the beginning of a text."""
    tokenizer = train_byte_bpe(["a dogma dogma"] * 9, 300)
    assert len(ids(tokenizer, "dogma")) > 1
    with pytest.raises(DataError, match="'dogma' is in the tokenizer already"):
        extended(tokenizer, ["dogma"])


def test_a_file_of_words(tmp_path):
    path = tmp_path / "words.txt"
    path.write_bytes("\ufeffcovid\r\n\r\n  two words \r\nC++".encode())
    assert listed(str(path)) == ["covid", "two words", "C++"]
    assert listed(["covid", "C++"]) == ["covid", "C++"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, r"can't be read \(No such file or directory\); name a file with a word a line, or a list"),
        (b"", "has no word in it; name words, or leave tokenizer.new_tokens out"),
        (b"\n \n", "has no word in it"),
        (b"a\nb\na\n", "has 'a' twice; name each word once"),
        (b"\xe9\xff", r"can't be read \(it isn't UTF-8\)"),
    ],
)
def test_bad_files(content, said, tmp_path):
    path = tmp_path / "words.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=f"^tokenizer.new_tokens: {path} {said}"):
        listed(str(path))


@pytest.mark.parametrize("words", [[], [""], [" a"], ["a", "b\n"], ["a", "a"]])
def test_bad_lists(words):
    with pytest.raises(DataError, match=r"^tokenizer\.new_tokens: "):
        listed(words)


@pytest.mark.parametrize("name", ["wordpiece", "byte_bpe"])
def test_a_trained_tokenizer_takes_its_words_from_the_text(name):
    with pytest.raises(
        DataError, match=rf"^tokenizer.new_tokens: {name} is trained on the text itself; name"
    ):
        TokenizerConfig(name=name, new_tokens=["covid"])
