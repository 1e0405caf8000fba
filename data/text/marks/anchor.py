"""The anchor: the token that every window begins with, and how a tokenizer says which one it is."""

from typing import Any

from cadenza.data.errors import DataError

NAMED = 5  # tokens that an error lists


def anchor_id(tokenizer: Any, token: str | None = None) -> int:
    """The id of the anchor.

    Args:
        token: the value of `data.anchor_token`. None: BOS; EOS where there is no BOS; [CLS] of a trained
            WordPiece.

    Raises:
        DataError: the tokenizer has no such token, or splits it.
    """
    if token is None:
        return _first(tokenizer, "bos_token_id", "eos_token_id", "cls_token_id")
    added = tokenizer.get_added_vocab()
    if token not in added:
        others = sorted(set(added) - {tokenizer.eos_token, tokenizer.sep_token, tokenizer.pad_token})
        shown = ", ".join(others[:NAMED]) + ", ..." * (len(others) > NAMED)
        right = f"name one of {shown}" if others else "leave it null"
        raise DataError(f"data.anchor_token: {token!r} isn't an added token of the tokenizer; {right}")
    return added[token]


def end_id(tokenizer: Any) -> int:
    """The id that ends a document: EOS, or [SEP] of a trained WordPiece; errors as in `anchor_id`."""
    return _first(tokenizer, "eos_token_id", "sep_token_id")


def check_anchor(tokenizer: Any, token: str | None, end_of_document: bool) -> int:
    """`anchor_id`; raises `DataError` for a chosen `token` that would end documents, too."""
    found = anchor_id(tokenizer, token)
    if token is not None and end_of_document and found == end_id(tokenizer):
        right = "name another one, or set data.end_of_document=false"
        raise DataError(f"data.anchor_token: {token!r} ends each document, too; {right}")
    return found


def carry_anchor(tokenizer: Any, token: str | None) -> Any:
    """`tokenizer`, whose BOS is the chosen anchor.

    It is saved with the model, so that `anchor_id` of the saved tokenizer is the anchor of training.
    """
    if token is not None:
        anchor_id(tokenizer, token)
        tokenizer.bos_token = token
    return tokenizer


def _first(tokenizer: Any, *names: str) -> int:
    for name in names:
        if (found := getattr(tokenizer, name, None)) is not None:
            return found
    raise DataError(
        f"tokenizer.name: the tokenizer has no {' and no '.join(names)}; windows need one of them"
    )
