"""What all trained tokenizers share: special tokens, and a note of what was asked for."""

from typing import Any

from cadenza.data.errors import DataError

SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}


def finished(tokenizer: Any, decoder: Any, **asked: Any) -> Any:
    """As transformers' tokenizer, with [CLS] and [SEP] around a text; its files say what was `asked` for."""
    from tokenizers import processors
    from transformers import PreTrainedTokenizerFast

    ids = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ids
    )
    tokenizer.decoder = decoder
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, trained=asked, **SPECIAL)


def check_room(vocab_size: int, characters: int) -> None:
    """Raise `DataError` if special tokens and the `characters` of the text alone are too many."""
    needed = len(SPECIAL) + characters
    if vocab_size < needed:
        raise DataError(
            f"tokenizer.vocab_size is {vocab_size}; the characters of the text alone take {needed}: "
            "set it higher, or tokenizer.name=byte_bpe, which needs 261"
        )
