"""Long documents come more often, and each domain keeps its share of the tokens."""

from collections import Counter

import numpy as np
import pytest
from domains import FIELD, rows
from words import Words

from cadenza.data import DataError, TextConfig
from cadenza.data.progress import Place
from cadenza.data.text.datasets.mixture import Mixture
from cadenza.data.text.datasets.window_streams import WindowedStream
from cadenza.data.text.datasets.windows import WindowedDocuments
from cadenza.data.text.marks.domains import Domains
from cadenza.data.text.marks.upsampling import MOST_DOMAINS, Shares, upsampled
from cadenza.data.text.rows import Texts

TIMES, FROM, LONGEST = 3, 21, 61  # a book of 60 words and its end
ROWS = rows()
LENGTHS = np.array([len(row["text"].split()) for row in ROWS])
NAMES = [row["meta"]["set"] for row in ROWS]


def of_rows(numbers):
    """Of each domain, the tokens of these rows, each with its end."""
    found = Counter()
    for number in numbers:
        found[NAMES[number]] += int(LENGTHS[number]) + 1
    return found


def passed(domains, lengths=LENGTHS):
    times = np.where(lengths >= FROM, TIMES, 1)
    order = np.random.default_rng(3).permutation(len(lengths))
    return upsampled(order, lengths + 1, times, domains, seed=3)


def test_without_domains_the_mixture_shifts():
    """What the option mends: books are 0.42 of the tokens, and would become 0.63."""
    plain, shifted = of_rows(range(len(ROWS))), of_rows(passed(None))
    assert shifted["page"] == plain["page"]
    assert shifted["book"] > 2 * plain["book"]


def test_a_finite_source_keeps_the_shares():
    plain, order = of_rows(range(len(ROWS))), passed(Domains.of(NAMES).numbers)
    found = of_rows(order)
    factor = found["book"] / plain["book"]
    assert factor > 2, "of the domain with the most long documents, none is left out or added"
    assert abs(found["page"] - factor * plain["page"]) <= 21 / 2, "half of the longest page and its end"
    counts = Counter(order.tolist())
    assert set(counts) == set(range(len(ROWS))), "no document is left out"
    books = [number for number, name in enumerate(NAMES) if name == "book"]
    assert {counts[n] for n in books if LENGTHS[n] >= FROM} == {TIMES}
    assert {counts[n] for n in books if LENGTHS[n] < FROM} == {1}
    assert {counts[n] for n, name in enumerate(NAMES) if name == "page"} <= {2, 3}


@pytest.mark.parametrize("seed", range(5))
def test_the_shares_of_any_corpus_are_kept(seed):
    draws = np.random.default_rng(seed)
    lengths, domains = draws.integers(1, 200, 300), draws.integers(0, 7, 300) * 2
    times = np.where(lengths >= 100 + 10 * domains, 5, 1)
    order = upsampled(draws.permutation(300), lengths, times, domains, seed)
    plain, found = (np.bincount(domains[rows], lengths[rows]) for rows in (np.arange(300), order))
    factor = found[plain > 0] / plain[plain > 0]
    most = (np.bincount(domains, lengths * times)[::2] / plain[::2]).max()
    for ratio, number in zip(factor, np.unique(domains), strict=True):
        longest = lengths[domains == number].max()
        assert abs(ratio - most) * plain[number] <= longest / 2 + 1e-6


def test_nothing_long_changes_nothing():
    order = np.random.default_rng(3).permutation(len(ROWS))
    times = np.ones(len(ROWS), dtype=int)
    assert upsampled(order, LENGTHS, times, Domains.of(NAMES).numbers, 3).tolist() == order.tolist()


def stream(given, **more):
    cfg = TextConfig(max_seq_len=32, upsample_from=FROM, upsample_times=TIMES, **more)
    return WindowedStream(Texts(given, cfg), Words(), cfg, False)


def read_by_domain(made, given):
    """Of each domain the tokens of pieces: a domain's words have lengths of their own."""
    ids = np.concatenate([row["input_ids"][1:].numpy() for row in made])
    ends = np.flatnonzero(ids == Words.sep_token_id)
    pieces = np.split(ids, ends + 1)[:-1]
    known = {tuple(5 + len(w) % 90 for w in row["text"].split()): row["meta"]["set"] for row in given}
    found = Counter()
    for piece in pieces:
        found[known[tuple(piece[:-1].tolist())]] += len(piece)
    return found


def test_a_stream_keeps_the_shares():
    """Within the repetitions of one document, whatever the length of the stream."""
    plain = of_rows(range(len(ROWS)))
    shifted = read_by_domain(stream(ROWS), ROWS)
    assert shifted["book"] > 2 * plain["book"]
    found = read_by_domain(stream(ROWS, domain_field=FIELD, domain_format=None), ROWS)
    for name, longest in (("page", 21), ("book", LONGEST)):
        assert -longest <= found[name] - plain[name] <= (TIMES - 1) * longest
    assert found != plain


def test_long_and_short_documents_are_passed_by_equally_often():
    shares, draws = Shares({}), np.random.default_rng(0)
    given, asked = Counter(), Counter()
    for _ in range(20_000):
        length = int(draws.choice([10, 40]))
        times = TIMES if length == 40 else 1
        given[length] += shares.times("a", length, times)
        asked[length] += times
    ratio = given[40] / given[10] / (asked[40] / asked[10])
    assert ratio == pytest.approx(1, abs=0.1)  # 3 standard errors of counts of about 3,600 and 10,900 / 3
    assert given[10] < asked[10]


@pytest.mark.parametrize("stop", range(1, 40, 3))
def test_a_stream_goes_on_where_it_was(stop):
    options = {"domain_field": FIELD, "domain_format": "{domain}"}

    class OneTag(Words):
        def __call__(self, texts, **_):
            return {"input_ids": [95]} if isinstance(texts, str) else super().__call__(texts)

    def begun():
        made = stream(ROWS, **options)
        made.tokenizer = made.tagging.tokenizer = OneTag()
        return made

    whole = list(begun().read(Place()))
    _, place = whole[stop]
    assert stop < 10 or dict(place.ahead).keys() == {"book", "page"}
    rest = list(begun().read(Place(*place)))
    assert [row["input_ids"].tolist() for row, _ in rest] == [
        row["input_ids"].tolist() for row, _ in whole[stop + 1 :]
    ]
    assert [place for _, place in rest] == [place for _, place in whole[stop + 1 :]]


def test_a_stream_of_too_many_domains_is_refused():
    shares = Shares({str(number): 0 for number in range(MOST_DOMAINS)})
    with pytest.raises(DataError, match=r"^data.domain_field has more than 1,000 values; name a field with"):
        shares.times("one more", 3, 1)


def test_the_weights_of_a_mixture_hold_whatever_is_upsampled():
    made = []
    for name in ("page", "book"):
        lengths = [LENGTHS[n] for n, each in enumerate(NAMES) if each == name]
        given = [np.full(length, 9, dtype=np.int32) for length in lengths]
        cfg = TextConfig(max_seq_len=16, upsample_from=FROM, upsample_times=TIMES)
        made.append(WindowedDocuments(given, Words(), cfg, 0))
    mixture = Mixture(made, [0.75, 0.25], seed=0)
    assert mixture.counts[0] / len(mixture) == pytest.approx(0.75, abs=1 / len(mixture))
