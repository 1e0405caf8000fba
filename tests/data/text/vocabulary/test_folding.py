"""`lowercase` and `strip_accents`: what each drops, and what stays."""

import pytest

from cadenza.data import TokenizerConfig, train_wordpiece
from cadenza.data.text import vocabulary
from cadenza.data.text.vocabulary import TRAINERS

# Latin, Cyrillic, Greek; Hindi, Thai, Japanese and Korean, whose marks tell words apart.
TEXT = "The Café Й \u0388 \u0915\u0941 \u0e19\u0e35\u0e49 \u304c \ud55c"
FOLDED = {
    (False, False): TEXT,
    (True, False): "the café й \u03ad \u0915\u0941 \u0e19\u0e35\u0e49 \u304c \ud55c",
    (False, True): "The Cafe И \u0395 \u0915\u0941 \u0e19\u0e35\u0e49 \u304c \ud55c",
    (True, True): "the cafe и \u03b5 \u0915\u0941 \u0e19\u0e35\u0e49 \u304c \ud55c",
}


@pytest.mark.parametrize("options", FOLDED)
@pytest.mark.parametrize("name", TRAINERS)
def test_case_and_accents_are_dropped_where_asked(name, options):
    tokenizer = TRAINERS[name]([TEXT], 300, *options)
    assert tokenizer.decode(tokenizer(TEXT, add_special_tokens=False)["input_ids"]) == FOLDED[options]


@pytest.mark.parametrize("name", TRAINERS)
def test_what_is_folded_shares_its_ids(name):
    plain, folding = (TRAINERS[name]([TEXT, TEXT.lower()], 300, *options) for options in ((0, 0), (1, 1)))
    pairs = ("the café", "THE CAFE"), ("й", "И"), ("e\u0301", "\u00c9")
    for one, other in pairs:
        assert folding(one)["input_ids"] == folding(other)["input_ids"]
        assert plain(one)["input_ids"] != plain(other)["input_ids"]


@pytest.mark.parametrize("name", TRAINERS)
def test_a_recipes_options_reach_the_trainer(name):
    for lowercase, strip_accents in FOLDED:
        cfg = TokenizerConfig(name, 310, lowercase, strip_accents)
        asked = vocabulary.train(cfg, [TEXT]).init_kwargs["trained"]
        assert asked == vocabulary.asked(cfg)
        options = {"vocab_size": 310, "lowercase": lowercase, "strip_accents": strip_accents}
        assert asked == {"name": name, **options}


def test_a_lower_casing_wordpiece_is_that_of_earlier_versions():
    """Published figures stand on it: their recipes now say `lowercase: true`."""
    from tokenizers import Regex, normalizers

    before = normalizers.Sequence(
        [
            normalizers.NFC(),
            normalizers.Replace(Regex(r"[\p{Cc}\u200b]"), " "),
            normalizers.Replace(Regex(r"[\p{Cf}&&[^\u200c\u200d]]"), ""),
            normalizers.BertNormalizer(clean_text=False, strip_accents=False, lowercase=True),
        ]
    )
    now = train_wordpiece([TEXT], 300, lowercase=True).backend_tokenizer.normalizer
    for text in (
        TEXT,
        "\u0130stanbul \u03a3\u03a3 \u00c5\u0301 \u65e5\u672c\tx\u200by\u00ad",
        "\ufb01 \u1e9e \u0000",
    ):
        assert now.normalize_str(text) == before.normalize_str(text)
