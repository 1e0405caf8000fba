"""The schema of a recipe's `tokenizer` section."""

from dataclasses import dataclass

from cadenza.data.errors import DataError
from cadenza.options import Range, Text, check, option

TRAINED = ("tokenizer.name", ("wordpiece", "byte_bpe", "unigram"))


@dataclass
class TokenizerConfig:
    """The tokenizer. A run that loads a checkpoint goes on with the checkpoint's own."""

    name: str = option(
        "wordpiece",
        "A name on the Hub, a folder, or a kind that is trained on the source's training text and cached: "
        "`wordpiece`, `byte_bpe`, to which no text is unknown, or `unigram`, for scripts without spaces.",
        Text(),
    )
    vocab_size: int = option(4000, "Words of a trained tokenizer.", Range("[300, 16777216]"), only=TRAINED)
    lowercase: bool = option(False, "Whether a trained tokenizer lower-cases its text.", only=TRAINED)
    strip_accents: bool = option(
        False,
        "Whether a trained tokenizer drops accents, as of \u00e9 and \u0439; vowel signs and tones of other "
        "scripts stay.",
        only=TRAINED,
    )
    cache_dir: str | None = option(
        None,
        "Where trained tokenizers are kept; null: `$CADENZA_CACHE`, else `~/.cache/cadenza`.",
        Text(),
        only=TRAINED,
    )
    new_tokens: str | list[str] | None = option(
        None,
        "Words to add to a tokenizer that is named: a list, or a file with one a line. In a pretrained model "
        "each begins as the mean of the pieces that it was split into.",
        Text(),
    )

    def __post_init__(self) -> None:
        check(self, "tokenizer.", DataError)
        if self.new_tokens is not None and self.name in TRAINED[1]:
            right = "name a tokenizer that exists, or raise tokenizer.vocab_size"
            raise DataError(f"tokenizer.new_tokens: {self.name} is trained on the text itself; {right}")
