"""Packed batches of examples: the same examples in another layout, with the same loss."""

import copy
import warnings

import pytest
import torch
from composer import Trainer
from composer.core import DataSpec
from families import classifier
from torch.utils.data import DataLoader

from cadenza.algorithms import apply_sequence_packing
from cadenza.data.errors import DataError
from cadenza.data.labelled.packing import Packing, examples_in, pack
from cadenza.models import composer_model

LENGTHS = (3, 9, 1, 7, 4, 9)
CAPACITY = 16


def padded(lengths=LENGTHS, side="right", seed=0):
    """A padded batch, a column wider than needed; example n has draw 100 + n."""
    generator = torch.Generator().manual_seed(seed)
    width = max(lengths) + 1
    at = torch.arange(width)[None]
    mask = (at < torch.tensor(lengths)[:, None]).long()
    mask = mask if side == "right" else mask.flip(1)
    ids = torch.randint(3, 90, mask.shape, generator=generator) * mask
    segments = (at % 2) * mask
    count = len(lengths)
    return {
        **{"input_ids": ids, "attention_mask": mask, "token_type_ids": segments},
        **{"labels": torch.arange(count) % 3, "draw": 100 + torch.arange(count)},
    }


def examples_of(batch):
    """{draw: (tokens, segments, label)} of a packed batch, in the order of its documents."""
    found, documents = {}, iter(zip(batch["draw"].tolist(), batch["labels"].tolist(), strict=True))
    for row, numbers in enumerate(batch["document_ids"]):
        for number in range(1, int(numbers.max()) + 1):
            own = numbers == number
            draw, label = next(documents)
            tokens, segments = (batch[name][row][own].tolist() for name in ("input_ids", "token_type_ids"))
            found[draw] = tokens, segments, label
    return found


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_packed_batch_holds_the_same_examples(side):
    batch = padded(side=side)
    packed = pack(batch, CAPACITY)
    real = batch["attention_mask"].bool()
    expected = {
        int(batch["draw"][n]): (
            batch["input_ids"][n][real[n]].tolist(),
            batch["token_type_ids"][n][real[n]].tolist(),
            int(batch["labels"][n]),
        )
        for n in range(len(LENGTHS))
    }
    assert examples_of(packed) == expected
    assert examples_in(packed) == examples_in(batch) == len(LENGTHS)


def test_rows_are_filled_first_fit_longest_first():
    packed = pack(padded(), CAPACITY)
    assert packed["draw"].tolist() == [101, 103, 105, 104, 100, 102]  # 9 + 7, 9 + 4 + 3, 1
    assert packed["document_ids"].tolist() == [
        [1] * 9 + [2] * 7,
        [1] * 9 + [2] * 4 + [3] * 3,
        [1] + [-1] * 15,
    ]
    assert torch.equal(packed["attention_mask"], (packed["document_ids"] > 0).long())


def test_rows_are_as_wide_as_the_fullest():
    assert pack(padded((3, 2)), 100)["input_ids"].shape == (1, 5)
    assert pack(padded((9,)), 9)["document_ids"].tolist() == [[1] * 9]


def test_the_batch_itself_stays():
    batch = padded()
    before = copy.deepcopy(batch)
    pack(batch, CAPACITY)
    assert batch.keys() == before.keys()
    assert all(torch.equal(batch[name], before[name]) for name in before)


def test_numbers_of_several_columns_and_lists_keep_to_their_examples():
    batch = padded() | {"labels": torch.rand(6, 10), "text": list("abcdef")}
    packed = pack(batch, CAPACITY)
    order = (packed["draw"] - 100).tolist()
    assert torch.equal(packed["labels"], batch["labels"][order])
    assert packed["text"] == ["abcdef"[n] for n in order]


def test_what_cannot_be_packed():
    with pytest.raises(DataError, match="example 1 of a batch has no tokens"):
        pack(padded((3, 0, 2)), CAPACITY)
    with pytest.raises(ValueError, match="a sequence of 9 tokens doesn't fit a row of 8"):
        pack(padded(), 8)


def trained(packs, microbatch):
    """The weights after two batches, and how many tokens the layers saw."""
    model, seen = classifier("bert", hidden_dropout_prob=0, attention_probs_dropout_prob=0), []
    apply_sequence_packing(model)
    query = model.bert.encoder.layer[0].attention.self.query
    query.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[:-1].numel()))
    loader = DataLoader([padded(seed=0), padded(seed=1)], batch_size=None)
    transform = {"microbatch_transforms": Packing(CAPACITY)} if packs else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Trainer(
            model=composer_model(model.train()),
            train_dataloader=DataSpec(loader, get_num_samples_in_batch=examples_in, **transform),
            optimizers=torch.optim.SGD(model.parameters(), lr=0.5),
            max_duration="2ba",
            device_train_microbatch_size=microbatch,
            progress_bar=False,
        ).fit()
    return model.state_dict(), sum(seen)


@pytest.mark.parametrize("microbatch", [6, 4])
def test_training_on_packed_rows_takes_the_same_steps(microbatch):
    """In microbatches of 4 and 2 examples too, whose losses count by their examples."""
    (stock, rows), (ours, tokens) = trained(False, microbatch), trained(True, microbatch)
    assert all((ours[name] - stock[name]).abs().max() < 1e-5 for name in stock)
    assert (rows, tokens) == (2 * 6 * 10, 2 * sum(LENGTHS))
