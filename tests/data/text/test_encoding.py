"""Text that the tokenizer doesn't know: counted, left out where it stands alone, refused where it is most."""

import json
from contextlib import nullcontext

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from cadenza.data import (
    DataError,
    MaskedLMCollator,
    TextConfig,
    build_causal_dataspec,
    build_dataspec,
    train_wordpiece,
)
from cadenza.data.text.encoding import Encoder

SPECIAL = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
IDS = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "the": 4, "cat": 5, "sat": 6, "mat": 12, "[MASK]": 20}
BUILDERS = {"masked": build_dataspec, "packed": build_dataspec, "causal": build_causal_dataspec}


@pytest.fixture
def gapped():
    """A tokenizer whose ids have gaps."""
    plain = Tokenizer(models.WordLevel(IDS, unk_token="[UNK]"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=plain, **SPECIAL)


def spec(tmp_path, tokenizer, kind, texts, **options):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    cfg = TextConfig(eval_source=str(path), max_seq_len=8, **options)
    packed = {"packed": True} if kind == "packed" else {}
    return BUILDERS[kind](cfg, tokenizer, train=False, batch_size=2, seed=0, **packed)


@pytest.mark.parametrize("kind", BUILDERS)
def test_the_share_of_unknown_tokens_is_counted(tmp_path, gapped, kind):
    texts = ["the cat sat", "a dog sat", "", "the mat the"]
    dataset = spec(tmp_path, gapped, kind, texts).dataloader.dataset
    assert dataset.unknown_share == 2 / 9


@pytest.mark.parametrize("kind", BUILDERS)
@pytest.mark.parametrize(("unknown", "refused"), [(5, False), (6, True)])
def test_a_text_is_refused_if_most_of_it_is_unknown(tmp_path, gapped, kind, unknown, refused):
    texts = ["the " * 5, "a " * unknown]
    said = r"^tokenizer.name: 55% of the tokens of the first 2 documents are \[UNK\], unknown words; name one"
    with pytest.raises(DataError, match=said) if refused else nullcontext():
        spec(tmp_path, gapped, kind, texts)


def test_a_stream_is_refused_while_it_is_read(gapped):
    encoder, texts = Encoder(gapped), iter(["the"] * 1000 + ["a"] * 2000)
    with pytest.raises(DataError, match="67% of the tokens of the first 3,000 documents"):
        list(encoder(texts))
    assert (encoder.tokens, encoder.unknown) == (3000, 2000)


def test_a_tokenizer_without_an_unknown_token_knows_all(gapped):
    gapped.unk_token = None
    encoder = Encoder(gapped)
    assert [ids.tolist() for ids in encoder(["the", "cat"])] == [[4], [5]]
    assert encoder.unknown_share == 0
    assert Encoder(gapped).unknown_share == 0


@pytest.mark.parametrize(
    ("packed", "long", "rows"),
    [
        ("masked", "truncate", 3),  # "the cat", "the mat" and "the cat sat the"
        ("masked", "split", 5),  # and six and three of the nine words that follow six unknown ones
        ("packed", "truncate", 2),
        ("packed", "split", 4),
    ],
)
def test_sequences_in_which_nothing_can_be_predicted_are_left_out(tmp_path, gapped, packed, long, rows):
    texts = ["a b c", "the cat", "[MASK] a [SEP]", "a " * 6 + "sat " * 9, "the mat", "the cat sat the"]
    built = spec(tmp_path, gapped, packed, texts, long_documents=long)
    batches = [built.batch_transforms(batch) for batch in built.dataloader]
    assert all((batch["labels"] != -100).any() for batch in batches)
    assert sum(len(batch["input_ids"]) for batch in batches) == rows
    with pytest.raises(DataError, match=r"1 documents and 0 sequences for evaluation; a batch takes 1$"):
        spec(tmp_path, gapped, packed, ["[MASK]"])


def test_random_words_are_words_that_exist(gapped):
    """Also beyond the number of words: ids with gaps."""
    collator = MaskedLMCollator(gapped, 0.9, 16, seed=0)
    batch = collator([{"input_ids": torch.full((16,), 4), "draw": draw} for draw in range(400)])
    masked = collator.mask(batch)
    drawn = masked["input_ids"][(masked["labels"] != -100) & (masked["input_ids"] != gapped.mask_token_id)]
    assert set(drawn.tolist()) == {4, 5, 6, 12}
    share = [(drawn == word).double().mean().item() for word in (5, 6, 12)]
    assert all(abs(s - 1 / 8) < 0.02 for s in share), "half are kept as they are, half drawn from four words"


def test_a_tag_leaves_room_for_text(tmp_path, gapped):
    spec(tmp_path, gapped, "causal", ["the cat"] * 4, domain_tag="the " * 6)
    said = "^data.domain_tag: the tag has 7 tokens; a window of 8 has 6 beside the anchor and the text$"
    with pytest.raises(DataError, match=said):
        spec(tmp_path, gapped, "causal", ["the cat"], domain_tag="the " * 7)


def test_text_of_another_script_than_the_tokenizers_is_refused(tmp_path):
    english = train_wordpiece(["the cat sat on the mat"], 300)
    with pytest.raises(DataError, match="100% of the tokens of the first 1 documents"):
        spec(tmp_path, english, "masked", ["\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35"])
