"""Batches of labelled examples: padding, labels, order, and a resume."""

from dataclasses import replace

import pytest
import torch
from labelled_files import bert, examples, gpt2, roberta

from cadenza.data import DataError, LabelledConfig, build_labelled_dataspec


def build(found, tokenizer=None, train=True, batch_size=4, seed=5, **options):
    cfg = LabelledConfig(**options)
    more = {"train": train, "batch_size": batch_size, "seed": seed}
    return build_labelled_dataspec(found, tokenizer or bert(), cfg, **more)


def batches(spec, epoch=0):
    spec.dataloader.sampler.set_epoch(epoch)
    return list(spec.dataloader)


def same(one, other):
    return len(one) == len(other) and all(
        a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
        for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_is_on_the_tokenizers_side(side):
    tokenizer, found = bert(padding_side=side), examples(10, paired=True)
    (batch,) = batches(build(found, tokenizer, train=False, batch_size=10, pair_field="pair"))
    plain = tokenizer(
        [each.text for each in found], [each.pair for each in found], padding=True, pad_to_multiple_of=8
    )
    for name in ("input_ids", "attention_mask", "token_type_ids"):
        assert batch[name].tolist() == plain[name]
        assert batch[name].dtype == torch.int64
    assert batch["labels"].tolist() == [n % 3 for n in range(10)]
    assert batch["draw"].tolist() == list(range(10))


def test_a_tokenizer_without_token_types():
    (batch,) = batches(build(examples(4), roberta(), train=False))
    assert set(batch) == {"input_ids", "attention_mask", "labels", "draw"}
    assert batch["input_ids"][0].tolist() == [0, *roberta().convert_tokens_to_ids(["w", "0"]), 2, *[1] * 12]


@pytest.mark.parametrize(("count", "limit", "length"), [(6, 64, 8), (7, 64, 16), (20, 12, 12), (20, 16, 16)])
def test_the_length_of_a_batch(count, limit, length):
    """Of the longest, `count` words and two special tokens, or the limit."""
    (batch,) = batches(build(examples(count), train=False, batch_size=count, max_seq_len=limit))
    assert batch["input_ids"].shape == (count, length)
    assert batch["attention_mask"].sum(1).max() == min(count + 2, limit)


def test_labels_of_numbers():
    found = [replace(each, label=-100.0 + n / 4) for n, each in enumerate(examples(8))]
    spec = build(found, train=False, batch_size=8, target="number")
    (batch,) = batches(spec)
    assert batch["labels"].dtype == torch.float32
    assert batch["labels"].tolist() == [-100.0 + n / 4 for n in range(8)]
    counted = spec.get_num_tokens_in_batch(batch, token_type="loss_generating")
    assert counted == 8, "-100 is a number as any other"


def test_what_a_batch_counts():
    spec = build(examples(8), train=False, batch_size=8)
    (batch,) = batches(spec)
    assert spec.get_num_samples_in_batch(batch) == 8
    assert spec.get_num_tokens_in_batch(batch, token_type="total") == sum(n + 3 for n in range(8))
    assert spec.get_num_tokens_in_batch(batch, token_type="loss_generating") == 8
    halves = spec.split_batch(batch, 4)
    assert [len(half["labels"]) for half in halves] == [4, 4]


def test_training_is_shuffled_by_the_seed_and_evaluation_is_in_order():
    found = examples(23)
    order = [[int(n) for batch in batches(build(found, seed=seed)) for n in batch["draw"]] for seed in (5, 6)]
    assert order[0] != order[1]
    assert len(set(order[0])) == 20, "a last batch that isn't full is dropped"
    held = build(found, train=False)
    assert [int(n) for batch in batches(held, 3) for n in batch["draw"]] == list(range(23))
    second = [int(n) for batch in batches(build(found), 1) for n in batch["draw"]]
    assert all(23 <= n < 46 for n in second)


def test_a_draw_finds_its_example():
    spec = build(examples(23))
    dataset = spec.dataloader.dataset
    for batch in batches(spec, epoch=2):
        for draw, label, mask in zip(batch["draw"], batch["labels"], batch["attention_mask"], strict=True):
            example = dataset.examples[int(draw) % len(dataset)]
            assert example.label == int(label)
            assert len(example.text.split()) + 2 == int(mask.sum())
    assert dataset.lengths().tolist() == [n + 3 for n in range(23)]


def test_any_number_of_workers_gives_the_same():
    found = examples(23)
    spec = build(found, num_workers=2)
    assert same(batches(build(found), 1), batches(spec, 1))
    spec.dataloader._iterator = None  # ends the workers now


@pytest.mark.parametrize("taken", [1, 3])
def test_a_resume_goes_on_behind_the_batches_of_a_checkpoint(taken):
    whole = batches(build(examples(23)), 1)
    resumed = build(examples(23))
    state = build(examples(23)).dataloader.dataset.state_dict(4 * taken, True)
    resumed.dataloader.dataset.load_state_dict(state)
    assert same(batches(resumed, 1), whole[taken:])
    assert not same(batches(resumed, 2), whole)


def test_fewer_examples_than_a_batch():
    said = r"^data\.source: labelled\.csv gives 3 examples for training; a batch takes 4$"
    with pytest.raises(DataError, match=said):
        build(examples(3))
    assert len(batches(build(examples(3), train=False))) == 1
    with pytest.raises(DataError, match=r"gives 0 examples for evaluation; a batch takes 1$"):
        build([], train=False)


def test_a_tokenizer_without_padding_pads_with_its_end_token():
    tokenizer = gpt2()
    (batch,) = batches(build(examples(4), tokenizer, train=False))
    assert batch["input_ids"][0].tolist() == [0, *[38] * 7]
    assert batch["attention_mask"][0].tolist() == [1, *[0] * 7]
    tokenizer.eos_token = None
    with pytest.raises(
        DataError, match=r"^tokenizer\.name: the tokenizer has no pad_token, eos_token or sep_"
    ):
        build(examples(4), tokenizer)
