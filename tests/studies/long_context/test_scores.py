"""Loss by position, and recall, on models that are known to answer right or wrong."""

import json
import math
import random
from types import SimpleNamespace

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from cadenza.studies.checks import StudyError
from cadenza.studies.long_context import positions, recall, results
from cadenza.studies.long_context.text import document


def word_tokenizer(words):
    plain = Tokenizer(
        models.WordLevel({word: index for index, word in enumerate(["[UNK]", *words])}, "[UNK]")
    )
    plain.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Punctuation()])
    return PreTrainedTokenizerFast(tokenizer_object=plain, unk_token="[UNK]")


PROSE = [f"prose{number}" for number in range(50)]


class Known:
    """A model that is certain of the next token where `right` says so, and of token 0 elsewhere."""

    device = torch.device("cpu")

    def __init__(self, vocabulary, right):
        self.vocabulary, self.right = vocabulary, right

    def __call__(self, ids):
        logits = torch.zeros(*ids.shape, self.vocabulary)
        for place in range(ids.shape[1] - 1):
            token = int(ids[0, place + 1]) if self.right(place + 1) else 0
            logits[0, place, token] = 20.0
        return SimpleNamespace(logits=logits)


class Uniform:
    device = torch.device("cpu")

    def __call__(self, ids):
        return SimpleNamespace(logits=torch.zeros(*ids.shape, 50))


def test_the_loss_of_each_part_is_that_of_its_own_positions():
    documents = [[1, *range(2, 66)], [1, *range(3, 67)]]  # 64 scored tokens: 4 in each part
    found = positions.losses(Known(100, lambda place: place <= 32), documents)
    assert len(found) == positions.PARTS
    assert found[:8] == pytest.approx([0.0] * 8, abs=1e-6)
    assert found[8:] == pytest.approx([20.0] * 8, abs=1e-3)


def test_the_loss_without_any_knowledge_is_that_of_the_vocabulary():
    losses = positions.losses(Uniform(), [[1, *range(2, 34)]])
    assert losses == pytest.approx([math.log(50)] * positions.PARTS)


def test_documents_are_cut_to_one_length_and_short_ones_are_left_out():
    tokenizer = word_tokenizer(["a", "b", "c"])
    texts = ["a b c a", "a b", "b b b b b b"]
    found = positions.cut(texts, tokenizer, 7, 5, most=10)
    assert [len(ids) for ids in found] == [5, 5]
    assert all(ids[0] == 7 for ids in found)
    assert len(positions.cut(texts, tokenizer, 7, 5, most=1)) == 1


def tokenizer_of(*texts):
    words = {word for text in texts for word in text.replace(".", " . ").split()}
    return word_tokenizer(sorted(words))


def test_recall_counts_the_values_that_can_be_known():
    pairs = document(random.Random(0), PROSE, 4, 6, 10)
    tokenizer = tokenizer_of(pairs.text)
    size = len(tokenizer)
    assert recall.accuracy(Known(size, lambda _: True), tokenizer, 1, [pairs]) == 1.0
    assert recall.accuracy(Known(size, lambda _: False), tokenizer, 1, [pairs]) == 0.0
    ids = tokenizer(pairs.text, add_special_tokens=False, return_offsets_mapping=True)
    places = [index + 1 for index, span in enumerate(ids["offset_mapping"]) if tuple(span) in pairs.known]
    assert len(places) == 6
    half = set(places[:3])
    assert recall.accuracy(Known(size, lambda place: place in half), tokenizer, 1, [pairs]) == 0.5
    others = Known(size, lambda place: place not in places)  # all but what counts
    assert recall.accuracy(others, tokenizer, 1, [pairs]) == 0.0


def test_examples_are_as_long_as_the_length_allows():
    tokenizer = tokenizer_of(" ".join(PROSE), document(random.Random(0), PROSE, 8, 8, 0).text)
    for length in (128, 200):
        for pairs in recall.examples(tokenizer, PROSE * 10, length, 3):
            tokens = 1 + len(tokenizer(pairs.text, add_special_tokens=False)["input_ids"])
            assert length - 1 <= tokens <= length
    with pytest.raises(StudyError, match="lengths: 8 pairs don't fit 32 tokens"):
        recall.examples(tokenizer, PROSE, 32, 1)


def cell(row, seed, losses, known):
    return {"row": row, "seed": str(seed), "losses": json.dumps(losses), "recall": json.dumps(known)}


def test_differences_are_paired_by_seed():
    found = results.Results(
        [
            cell("a", 1, [4.0, 2.0], {"128": 0.5}),
            cell("a", 2, [6.0, 3.0], {"128": 0.7}),
            cell("b", 1, [5.0, 3.0], {"128": 0.4}),
            cell("b", 2, [7.0, 4.0], {"128": 0.6}),
        ]
    )
    measures = results.measures([128], 64)
    first, beyond, known = (found.difference("a", "b", measure) for measure in measures.values())
    assert (first.mean, beyond.mean) == (-1.0, -1.0)
    assert known.mean == pytest.approx(0.1)
    assert found.mean("a", measures["loss, beyond 64"]).mean == 2.5
