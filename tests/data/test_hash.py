"""The hash behind masks and augmentation: the published algorithm, and the same in all versions."""

import numpy as np
import pytest
import torch
from plain_hash import GAMMA, plain_uniform, splitmix

from cadenza.data import MaskedLMCollator
from cadenza.data.draws import scramble, uniform, uniform_at

PUBLISHED = [  # the first numbers of SplitMix64 from the state 1234567
    6457827717110365317,
    3203168211198807973,
    9817491932198370423,
    4593380528125082431,
    16408922859458223821,
]
PINNED = {  # (key, draw, column): what runs of all versions have drawn
    (0, 0, 0): 0.6524484863740322,
    (17, 0, 0): 0.7605945697176064,
    (17, 1, 0): 0.1737199737144106,
    (17, 0, 1): 0.8793497574671177,
    (68, 2**40 + 5, 3): 0.4546829167423857,
    (70, 41, 127): 0.31464997035446807,
}


class Letters:
    """A tokenizer of twelve tokens, whose special ones lie between the others."""

    pad_token_id, mask_token_id, all_special_ids = 3, 7, (0, 3, 7)

    def get_vocab(self):
        return {chr(97 + number): number for number in range(12)}


WORDS = [1, 2, 4, 5, 6, 8, 9, 10, 11]


def test_it_is_splitmix():
    states = [(1234567 + n * GAMMA) % 2**64 for n in range(5)]
    assert [splitmix(state) for state in states] == PUBLISHED
    assert scramble(np.array(states, dtype=np.uint64)).tolist() == PUBLISHED


@pytest.mark.parametrize("place", PINNED)
def test_numbers_are_pinned(place):
    key, draw, column = place
    assert plain_uniform(*place) == PINNED[place]
    assert uniform(key, [draw], column + 1)[0, column] == PINNED[place]


def test_augmentation_draws_by_seed_draw_and_column():
    drawn = uniform(5, np.array([0, 9, 2**41 + 3]), 4)
    assert drawn.tolist() == [[plain_uniform(5, d, c) for c in range(4)] for d in (0, 9, 2**41 + 3)]
    assert uniform(5, range(3), 2).shape == (3, 2)


@pytest.mark.parametrize("seed", [0, 17, 18])
def test_masks_draw_by_seed_stream_draw_and_column(seed):
    draws, rows, columns = [0, 5, 2**40 + 5], np.array([2, 0, 2]), np.array([1, 3, 3])
    for key in range(4 * seed, 4 * seed + 3):
        plain = [[plain_uniform(key, d, c) for c in range(4)] for d in draws]
        assert uniform(key, draws, 4).tolist() == plain
        assert uniform_at(key, draws, rows, columns).tolist() == [plain[2][1], plain[0][3], plain[2][3]]


def plain_mask(ids, draw, seed, ratio):
    """The corrupted tokens and the labels of one row, token by token."""
    select, corrupt, replace = (
        [plain_uniform(4 * seed + stream, draw, column) for column in range(len(ids))] for stream in range(3)
    )
    now, labels = list(ids), [-100] * len(ids)
    for column, token in enumerate(ids):
        if token in Letters.all_special_ids or select[column] >= ratio:
            continue
        labels[column] = token
        if corrupt[column] < 0.8:
            now[column] = Letters.mask_token_id
        elif corrupt[column] < 0.9:
            now[column] = WORDS[int(replace[column] * len(WORDS))]
    return now, labels


def rows(count=40, length=16):
    """Every token of the vocabulary, special ones as well, at many places."""
    ids = [[(5 * row + 7 * column + row * column) % 12 for column in range(length)] for row in range(count)]
    return ids, [{"input_ids": torch.tensor(row), "draw": 3 * n} for n, row in enumerate(ids)]


@pytest.mark.parametrize("ratio", [0.15, 0.6, plain_uniform(4 * 17, 9, 5)])
def test_masks_against_one_token_at_a_time(ratio):
    """The last ratio is one that a token draws: the token below the ratio is masked, the one at it is not."""
    ids, examples = rows()
    made = MaskedLMCollator(Letters(), ratio, 16, 17)
    found = made.mask(made(examples))
    for n, row in enumerate(ids):
        assert (found["input_ids"][n].tolist(), found["labels"][n].tolist()) == plain_mask(
            row, 3 * n, 17, ratio
        )
    assert found["draw"].tolist() == [3 * n for n in range(40)]


def test_the_one_label_of_a_batch_without_any_is_the_likeliest():
    ids, examples = rows(6)
    made = MaskedLMCollator(Letters(), 1e-9, 16, 17)
    labels = made.mask(made(examples))["labels"]
    drawn = {
        (row, column): plain_uniform(4 * 17, 3 * row, column)
        for row in range(6)
        for column in range(16)
        if ids[row][column] in WORDS
    }
    assert [tuple(place) for place in (labels != -100).nonzero().tolist()] == [min(drawn, key=drawn.get)]


def test_no_two_seeds_and_streams_share_numbers():
    drawn = [uniform(4 * seed + stream, range(5), 8) for seed in (16, 17, 18) for stream in range(3)]
    assert len({each.tobytes() for each in drawn}) == 9
