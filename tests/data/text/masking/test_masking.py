"""MLM masking: rates, specials, and a pure function of (seed, draw, column)."""

import numpy as np
import pytest
import torch

from cadenza.data import DataError, MaskedLMCollator, train_wordpiece
from cadenza.data.draws import uniform, uniform_at
from cadenza.data.text.config import TextConfig

WORDS = [f"w{i}" for i in range(400)]


@pytest.fixture(scope="module")
def tokenizer():
    return train_wordpiece([" ".join(WORDS)], 500)


def examples(tokenizer, rows, length=64, first=0):
    generator = torch.Generator().manual_seed(0)
    words = torch.randint(5, len(tokenizer), (rows, length - 2), generator=generator)
    ends = torch.full((rows, 1), 2), torch.full((rows, 1), 3)
    ids = torch.cat([ends[0], words, ends[1]], 1)
    return [{"input_ids": ids[r, : length - r % 7], "draw": first + r} for r in range(rows)]


def collator(tokenizer, ratio=0.3, seed=17, **options):
    return MaskedLMCollator(tokenizer, ratio, 64, seed, **options)


def masked(tokenizer, rows, **kwargs):
    made = collator(tokenizer, **kwargs)
    return made.mask(made(examples(tokenizer, rows)))


def test_rates(tokenizer):
    """Selection and the 80/10/10 split within four standard deviations of a binomial."""
    made = collator(tokenizer)
    raw = made(examples(tokenizer, 1000))
    batch = made.mask(raw)
    eligible = ((raw["input_ids"] > 4) & (raw["attention_mask"] == 1)).sum().item()
    chosen = batch["labels"] != -100
    n = chosen.sum().item()

    def close(count, total, share):
        assert abs(count - share * total) < 4 * (total * share * (1 - share)) ** 0.5

    close(n, eligible, 0.3)
    now, before = batch["input_ids"][chosen], batch["labels"][chosen]
    close((now == 4).sum().item(), n, 0.8)
    kept = 0.1 + 0.1 / (len(tokenizer) - 5)  # a random word is the same one now and then
    close((now == before).sum().item(), n, kept)
    drawn = now[(now != 4) & (now != before)]
    assert len(set(drawn.tolist())) > 0.9 * (len(tokenizer) - 5)


def corruption(tokenizer, **shares):
    """The shares of the tokens to predict that are the mask token, another word, and themselves."""
    made = collator(tokenizer, **shares)
    batch = made.mask(made(examples(tokenizer, 1000)))
    chosen = batch["labels"] != -100
    now, before = batch["input_ids"][chosen], batch["labels"][chosen]
    parts = now == 4, (now != 4) & (now != before), now == before
    return [part.float().mean().item() for part in parts]


@pytest.mark.parametrize(("mask", "random"), [(1.0, 0.0), (0.0, 1.0), (0.5, 0.5), (0.2, 0.3), (0.0, 0.0)])
def test_the_shares_of_the_mask_token_and_of_random_words(tokenizer, mask, random):
    found = corruption(tokenizer, mask_replace_prob=mask, random_replace_prob=random)
    same = random / (len(tokenizer) - 5)  # a random word is the same one now and then
    # Of about 18,000 tokens four standard deviations of a binomial are below 0.015.
    assert found == pytest.approx([mask, random - same, 1 - mask - random + same], abs=0.015)
    assert (found[0] == 0) is (mask == 0), "a share of 0 is none at all"


def test_other_shares_choose_the_same_tokens(tokenizer):
    labels = [masked(tokenizer, 40, mask_replace_prob=share)["labels"] for share in (0.0, 0.9)]
    assert torch.equal(*labels)


@pytest.mark.parametrize("shares", [(0.8, 0.3), (1.0, 0.01), (0.5, 0.6)])
def test_more_than_all_tokens_cannot_be_replaced(shares):
    mask, random = shares
    said = rf"^data.random_replace_prob is {random} and data.mask_replace_prob {mask}; their sum must be"
    with pytest.raises(DataError, match=said):
        TextConfig(mask_replace_prob=mask, random_replace_prob=random)
    for mask in (0.7, 0.2 + 0.5, 0.1):  # also where the sum in floating point is a little above 1
        TextConfig(mask_replace_prob=mask, random_replace_prob=0.2 + 0.1)


def test_only_words_are_chosen_and_drawn(tokenizer):
    made = collator(tokenizer, ratio=0.9)
    raw = made(examples(tokenizer, 200))
    batch = made.mask(raw)
    chosen = batch["labels"] != -100
    assert (raw["input_ids"][chosen] > 4).all(), "no special token is predicted"
    assert not (chosen & (raw["attention_mask"] == 0)).any()
    assert torch.equal(batch["labels"][chosen], raw["input_ids"][chosen])
    assert torch.equal(batch["input_ids"][~chosen], raw["input_ids"][~chosen])
    assert ((batch["input_ids"][chosen] > 4) | (batch["input_ids"][chosen] == 4)).all()
    assert set(batch) == {"input_ids", "attention_mask", "labels", "draw"}


def test_the_mask_is_a_function_of_seed_and_draw(tokenizer):
    def mask_of(rows, seed=17):
        made = collator(tokenizer, seed=seed)
        return made.mask(made(rows))["labels"] != -100

    rows = examples(tokenizer, 21)
    whole = mask_of(rows)
    assert torch.equal(whole, mask_of(rows)), "again, the same"
    alone = torch.cat([mask_of(rows[i : i + 7]) for i in range(0, 21, 7)])
    assert torch.equal(whole, alone), "whatever batch it comes in"
    assert not torch.equal(whole, mask_of(rows, seed=18))
    later = [{**row, "draw": row["draw"] + 1000} for row in rows]
    assert not torch.equal(whole, mask_of(later)), "the next epoch masks anew"
    same = [{**row, "draw": 0, "input_ids": rows[0]["input_ids"]} for row in rows[:2]]
    assert torch.equal(*mask_of(same))


def test_streams_are_independent(tokenizer):
    key = collator(tokenizer).seed * 4
    uniforms = torch.stack([torch.from_numpy(uniform(key + n, range(500), 100)).flatten() for n in range(3)])
    assert (uniforms >= 0).all()
    assert (uniforms < 1).all()
    # 50,000 draws: a correlation beyond four standard deviations is 4 / sqrt(50,000).
    assert (torch.corrcoef(uniforms) - torch.eye(3)).abs().max() < 4 / 50_000**0.5
    rows = torch.from_numpy(uniform(key, range(500), 100))
    assert (torch.corrcoef(rows.T[:2]) - torch.eye(2)).abs().max() < 4 / 500**0.5
    assert (uniforms.mean(1) - 0.5).abs().max() < 4 / (12 * 50_000) ** 0.5


def test_single_places_have_the_numbers_of_whole_rows():
    rows, columns = np.array([0, 3, 3, 1]), np.array([5, 0, 9, 9])
    draws = [7, 2**40 + 1, 3, 9]
    assert np.array_equal(uniform_at(5, draws, rows, columns), uniform(5, draws, 10)[rows, columns])


@pytest.mark.parametrize("workers", [0, 2])
def test_the_ratio_changes_at_once(tokenizer, workers):
    """In the main process, and so past what workers have prefetched."""
    made = collator(tokenizer)
    rows = examples(tokenizer, 64)
    loader = torch.utils.data.DataLoader(rows, batch_size=8, collate_fn=made, num_workers=workers)
    shares = []
    for step, batch in enumerate(loader):
        made.mlm_probability = 0.1 if step % 2 else 0.8
        labels = made.mask(batch)["labels"]
        shares.append((labels != -100).float().mean().item())
    assert all(share > 0.5 for share in shares[::2])
    assert all(share < 0.3 for share in shares[1::2])


def test_workers_change_nothing(tokenizer):
    made = collator(tokenizer)
    rows = examples(tokenizer, 40)
    both = []
    for workers in (0, 2):
        loader = torch.utils.data.DataLoader(rows, batch_size=8, collate_fn=made, num_workers=workers)
        both.append([made.mask(batch) for batch in loader])
    for one, two in zip(*both, strict=True):
        assert all(torch.equal(one[key], two[key]) for key in one)


def test_a_batch_never_lacks_a_label(tokenizer):
    for draw in range(50):
        made = collator(tokenizer, ratio=1e-6)
        row = {"input_ids": torch.tensor([2, 7, 8, 3]), "draw": draw}
        assert (made.mask(made([row]))["labels"] != -100).sum() == 1
    nothing = {"input_ids": torch.tensor([2, 3]), "draw": 0}
    assert (made.mask(made([nothing]))["labels"] == -100).all()


def test_batches_are_padded_to_eights(tokenizer):
    made = collator(tokenizer)
    batch = made([{"input_ids": torch.arange(5, 5 + n), "draw": n} for n in (3, 9)])
    assert batch["input_ids"].shape == (2, 16)
    assert batch["attention_mask"].sum(1).tolist() == [3, 9]
    assert (batch["input_ids"][0, 3:] == tokenizer.pad_token_id).all()
    full = made([{"input_ids": torch.arange(5, 67), "draw": 0}])
    assert full["input_ids"].shape[1] == 64


@pytest.mark.parametrize(
    ("lengths", "width"),
    [([3], 8), ([8], 8), ([9, 3], 12), ([12], 12), ([13], 13), ([17, 18], 18)],
)
def test_no_padding_goes_beyond_max_seq_len(tokenizer, lengths, width):
    """Here 12, no multiple of 8; what is longer itself stays as it is."""
    made = MaskedLMCollator(tokenizer, 0.3, 12, 0)
    batch = made([{"input_ids": torch.arange(5, 5 + n), "draw": n} for n in lengths])
    assert batch["input_ids"].shape == (len(lengths), width)
    assert batch["attention_mask"].tolist() == [[1] * n + [0] * (width - n) for n in lengths]
    assert batch["draw"].tolist() == lengths


def test_documents_of_packed_rows_are_kept(tokenizer):
    made = collator(tokenizer)
    for count in (1, 2):
        rows = [{"input_ids": torch.arange(5, 8), "document_ids": torch.tensor([1, 1, 2]), "draw": 4}] * count
        batch = made.mask(made(rows))
        assert batch["document_ids"].tolist() == [[1, 1, 2] + [-1] * 5] * count
        assert batch["draw"].tolist() == [4] * count
        assert set(batch) == {"input_ids", "attention_mask", "labels", "draw", "document_ids"}


def test_a_bad_ratio_is_said(tokenizer):
    made = collator(tokenizer)
    for ratio in (0, 1, -0.1):
        with pytest.raises(DataError, match=r"it must lie in \(0, 1\)"):
            made.mlm_probability = ratio
