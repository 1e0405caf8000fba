"""Languages in training text and outside of it: what is unknown, and what decoding gives back."""

import unicodedata

import pytest

from cadenza.data.text.encoding import Encoder
from cadenza.data.text.vocabulary import TRAINERS

KNOWN = {
    "english": "The weather is fine today, and we don't know of any rain until 3.15 p.m.",
    "hindi": "आज मौसम अच्छा है और हम बाज़ार जाते हैं। क्या तुम कल आओगे?",
    "vietnamese": "Hôm nay thời tiết đẹp, chúng tôi đi chợ. Ngày mai bạn có đến không?",
    "thai": "วันนี้อากาศดีมาก เราไปตลาดกับเพื่อน พรุ่งนี้คุณจะมาไหม",
    "japanese": "今日は天気がいいので、友だちと市場へ行きます。明日は来ますか。",
    "chinese": "今天天气很好\uff0c我们和朋友一起去市场。明天你来吗\uff1f",
    "arabic": "الطقس جميل اليوم، ونذهب إلى السوق مع الأصدقاء. هل تأتي غدًا؟",
    "persian": "امروز هوا خوب است و ما به بازار می\u200cرویم. فردا می\u200cآیید؟",
    "korean": "오늘은 날씨가 좋아서 친구와 시장에 갑니다. 내일 오십니까?",
    "emoji": "fine \U0001f642 \u2600\ufe0f \U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f44d\U0001f3fd",
}
# The same letters in other words.
OTHER = {
    "hindi": "हम आज बाज़ार है",
    "thai": "เพื่อนมาตลาด วันนี้ดี",
    "japanese": "市場へ友だちと来ます。",
    "persian": "ما می\u200cآییم",
}
NEVER_SEEN = "\u1202\u120e \u0531\u0532"  # Ethiopic and Armenian


@pytest.fixture(scope="module", params=TRAINERS)
def tokenizer(request):
    return TRAINERS[request.param](KNOWN.values(), 600)


def unknown(tokenizer, text):
    encoder = Encoder(tokenizer)
    list(encoder([text, KNOWN["english"] * 9]))  # so much English that the rest is no error
    return encoder.unknown


def kind(tokenizer):
    return tokenizer.init_kwargs["trained"]["name"]


def back(tokenizer, text):
    return tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"])


@pytest.mark.parametrize("language", KNOWN)
def test_nothing_of_the_training_text_is_unknown(tokenizer, language):
    for form in ("NFC", "NFD"):
        assert unknown(tokenizer, unicodedata.normalize(form, KNOWN[language])) == 0


@pytest.mark.parametrize("language", OTHER)
def test_other_words_of_the_same_letters_are_known(tokenizer, language):
    assert unknown(tokenizer, OTHER[language]) == 0


def test_letters_that_were_never_seen_are_counted(tokenizer):
    """A run of them is one: a word of WordPiece, a stretch between spaces of a unigram model."""
    assert unknown(tokenizer, NEVER_SEEN) == (0 if kind(tokenizer) == "byte_bpe" else 2)


@pytest.mark.parametrize("language", KNOWN)
def test_decoding_gives_the_text_back(tokenizer, language):
    """Composed, and for WordPiece but for spaces, which it doesn't keep."""
    text = unicodedata.normalize("NFC", KNOWN[language])
    found = back(tokenizer, text)
    if kind(tokenizer) == "wordpiece":
        text, found = text.replace(" ", ""), found.replace(" ", "")
    assert found == text


def test_byte_pairs_give_back_any_text(tokenizer):
    if kind(tokenizer) == "byte_bpe":
        for text in (NEVER_SEEN, unicodedata.normalize("NFD", KNOWN["vietnamese"]), " a  b\n\t\x00\ufeff"):
            assert back(tokenizer, text) == text
