"""Whole-word masking: where words begin, by three kinds of tokenizers, and what is masked together."""

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast
from words import Words

from cadenza.data import DataError, MaskedLMCollator, TextConfig, build_dataspec, train_wordpiece
from cadenza.data.text.vocabulary import train_byte_bpe
from cadenza.data.text.vocabulary import train_unigram as trained_unigram
from cadenza.data.text.words import WordStarts, of_words

TEXT = "the quick-brown foxes jumped over 2024 lazy dogs (unbelievable!) and don't think, x1y2 re-thinking_it"
CORPUS = [TEXT, "unbelievably quick thinking foxes", "brown dogs believe", "jumping over lazily"] * 10


def train_unigram(texts, size):
    plain = Tokenizer(models.Unigram())
    plain.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<unk>", "<pad>", "<s>", "</s>", "<mask>"]
    plain.train_from_iterator(
        texts, trainers.UnigramTrainer(vocab_size=size, special_tokens=special, unk_token="<unk>")
    )
    named = {"unk_token": "<unk>", "pad_token": "<pad>", "cls_token": "<s>", "sep_token": "</s>"}
    return PreTrainedTokenizerFast(tokenizer_object=plain, mask_token="<mask>", **named)


KINDS = {"wordpiece": train_wordpiece, "byte_level": train_byte_bpe, "sentencepiece": train_unigram}


SIZES = {"wordpiece": 80, "byte_level": 300, "sentencepiece": 60}


@pytest.fixture(params=KINDS, scope="module")
def tokenizer(request):
    return KINDS[request.param](CORPUS, SIZES[request.param])


def plain_starts(text, places, tokens):
    """By characters: letters go on with the letters before them, and with a space that is a token alone."""
    starts, space = [], False
    for (a, b), token in zip(places, tokens, strict=True):
        first = a + (len(text[a:b]) - len(text[a:b].lstrip()))
        inside = 0 < first < len(text) and text[first - 1].isalnum() and text[first].isalnum()
        starts.append(not (inside or (space and text[first].isalnum())))
        space = token in ("▁", "Ġ")
    return starts


def test_starts_are_where_words_begin(tokenizer):
    for text in CORPUS[:4]:
        encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ids = torch.tensor([encoded["input_ids"]])
        found = WordStarts(tokenizer)(ids, torch.ones_like(ids, dtype=torch.bool))
        assert found[0].tolist() == plain_starts(
            text, encoded["offset_mapping"], tokenizer.convert_ids_to_tokens(encoded["input_ids"])
        )
        assert not found.all(), "some word has several pieces"


def test_a_word_ends_at_a_special_token(tokenizer):
    ids = torch.tensor([tokenizer("unbelievable", add_special_tokens=False)["input_ids"]])
    assert ids.shape[1] > 1
    eligible = torch.ones_like(ids, dtype=torch.bool)
    starts = WordStarts(tokenizer)
    assert starts(ids, eligible)[0].tolist() == [True] + [False] * (ids.shape[1] - 1)
    eligible[0, 0] = False
    assert starts(ids, eligible)[0, :2].tolist() == [True, True]


def test_a_number_is_that_of_the_first_token():
    starts = torch.tensor([[True, False, True, False, False], [True, True, False, True, True]])
    drawn = torch.arange(10.0).view(2, 5)
    assert of_words(drawn, starts).tolist() == [[0, 0, 2, 2, 2], [5, 6, 6, 8, 9]]


@pytest.mark.parametrize("ratio", [0.15, 0.5])
def test_words_are_predicted_whole(tokenizer, ratio):
    collator = MaskedLMCollator(tokenizer, ratio, 128, seed=3, words=True)
    ids = [tokenizer.cls_token_id, *tokenizer(TEXT, add_special_tokens=False)["input_ids"]]
    ids = torch.tensor([*ids, tokenizer.sep_token_id])
    raw = collator([{"input_ids": ids[: len(ids) - draw % 3], "draw": draw} for draw in range(600)])
    batch, eligible = collator.mask(raw), collator.eligible(raw)
    chosen = batch["labels"] != -100
    starts = collator.starts(raw["input_ids"], eligible)
    assert torch.equal(chosen[:, 1:] & ~starts[:, 1:], chosen[:, :-1] & ~starts[:, 1:])
    words = int((eligible & starts).sum())
    assert abs(int((chosen & starts).sum()) - ratio * words) < 4 * (words * ratio * (1 - ratio)) ** 0.5
    corrupted = (batch["input_ids"] == tokenizer.mask_token_id) & chosen
    assert bool((chosen & ~corrupted & ~starts).any()), "each token of a word is corrupted by itself"


def test_a_batch_of_no_draw_below_the_ratio_predicts_a_word(tokenizer):
    collator = MaskedLMCollator(tokenizer, 1e-9, 128, seed=3, words=True)
    ids = torch.tensor(tokenizer("unbelievable", add_special_tokens=False)["input_ids"])
    batch = collator.mask(collator([{"input_ids": ids, "draw": 1}]))
    assert int((batch["labels"] != -100).sum()) == len(ids)


def test_a_tokenizer_without_marks_is_refused():
    with pytest.raises(DataError, match=r"data\.masking: whole_word needs a tokenizer that marks words"):
        WordStarts(Words())


@pytest.mark.parametrize("train", [True, False])
def test_a_recipe_asks_for_it(train, text):
    tokenizer = train_wordpiece([text.read_text()], 300)
    for masking in ("token", "whole_word"):
        cfg = TextConfig(source=str(text), max_seq_len=32, masking=masking)
        spec = build_dataspec(cfg, tokenizer, train=train, batch_size=2, seed=1)
        assert (spec.dataloader.collate_fn.starts is not None) is (masking == "whole_word")


# Of each language two words, and how many words there are: of scripts without spaces, each piece is one.
SCRIPTS = {
    "hindi": ("\u0939\u093f\u0928\u094d\u0926\u0940 \u0915\u0941\u0924\u094d\u0924\u093e", 2),
    "decomposed accents": ("e\u0301te\u0301 cafe\u0301", 2),
    "persian": ("\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 \u0628\u0648\u062f", 2),
    "thai": ("\u0e27\u0e31\u0e19\u0e19\u0e35\u0e49 \u0e14\u0e35", None),
    "japanese": ("\u4eca\u65e5\u306f \u30c6\u30b9\u30c8", None),
}


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("train", [train_byte_bpe, trained_unigram])
def test_words_of_other_scripts(script, train):
    text, words = SCRIPTS[script]
    tokenizer = train([text] * 9, 600)
    ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
    starts = WordStarts(tokenizer)(ids, torch.ones_like(ids, dtype=torch.bool))[0]
    assert int(starts.sum()) == (words or ids.shape[1])
