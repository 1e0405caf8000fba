"""The words that a tokenizer doesn't know."""

from collections import Counter
from typing import Any

from cadenza.data.text.encoding import BATCH, Document


def unknown_words(documents: list[Document], tokenizer: Any, most: int = 8) -> list[tuple[str, int]]:
    """The pieces of text that most often become the unknown token, with their counts.

    Empty for a tokenizer that knows everything, and for one without offsets (`is_fast` is False).
    """
    unknown, found = tokenizer.unk_token_id, Counter()
    if unknown is None or not tokenizer.is_fast:
        return []
    texts = [document for document in documents if isinstance(document, str)]
    options = {"add_special_tokens": False, "return_offsets_mapping": True, "verbose": False}
    for start in range(0, len(texts), BATCH):
        part = texts[start : start + BATCH]
        encoded = tokenizer(part, **options)
        for text, ids, places in zip(part, encoded["input_ids"], encoded["offset_mapping"], strict=True):
            found.update(text[a:b] for id, (a, b) in zip(ids, places, strict=True) if id == unknown)
    return found.most_common(most)
