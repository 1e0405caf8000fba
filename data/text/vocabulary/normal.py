"""Which characters a trained tokenizer takes for the same."""

from typing import Any

from tokenizers import Regex, normalizers

# The blocks of combining diacritical marks. Vowel signs, Thai tones and the marks of kana aren't among them.
ACCENTS = r"[\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\ufe20-\ufe2f]"


def cleaned() -> list[Any]:
    """Normalizers that keep every letter, vowel sign and joiner.

    An accent becomes part of its letter where Unicode has such a letter. Control characters and zero-width
    spaces become spaces. Other invisible characters are dropped.
    """
    return [
        normalizers.NFC(),
        normalizers.Replace(Regex(r"[\p{Cc}\u200b]"), " "),
        normalizers.Replace(Regex(r"[\p{Cf}&&[^\u200c\u200d]]"), ""),
    ]


def folded(lowercase: bool, strip_accents: bool) -> list[Any]:
    """Normalizers that drop what these options say: none by default."""
    lower = [normalizers.Lowercase()] if lowercase else []
    stripped = [normalizers.NFD(), normalizers.Replace(Regex(ACCENTS), ""), normalizers.NFC()]
    return [*lower, *(stripped if strip_accents else [])]
