"""The Triton programs of FlashAttention 2 (Dao, arXiv 2307.08691) on documents back to back.

1. `forward` computes a tile of queries of one document and head, over the tiles of its keys, with an online
   softmax. It keeps the logarithm of the sum of the exponentials of each query.
2. `gradient_of_keys` computes a tile of keys and values, over the tiles of the queries that see them, and
   over the query heads that share them.
3. `gradient_of_queries` computes a tile of queries, over the tiles of keys that they see.

A tile never crosses the end of a document, so a document of 64 tokens costs one tile of 64, wherever it lies;
FlexAttention's blocks of 128 are fixed in the row of all tokens. Exponents have base 2, and scores its units.
"""

import triton
import triton.language as tl

# A program isn't compiled again where one of these is 1 or a multiple of 16.
OF_A_BATCH = ["total", "tiles", "window"]
NO = tl.constexpr(False)
HIDDEN = tl.constexpr(-3.0e38)  # finite: the difference of two infinities isn't a number


@triton.jit
def _scored(
    products, rows, columns, inside, window, scale, slope,
    ALIBI: tl.constexpr, CAUSAL: tl.constexpr, WINDOW: tl.constexpr,
):  # fmt: skip
    """The scores of `products`, in units of the exponent of 2.

    The masks are `cadenza.attention.call.visible` within a document. `inside` is whether a key is there;
    queries behind the end are zeros, whose gradients are zero, and aren't stored.
    """
    scores = products * scale
    if ALIBI:  # in float32, exact below 2^24 tokens: integers would be converted for each score
        scores -= slope * tl.abs(rows.to(tl.float32) - columns.to(tl.float32))
    if CAUSAL:
        scores = tl.where(rows >= columns, scores, HIDDEN)
    if WINDOW:
        scores = tl.where(tl.abs(rows - columns) < window, scores, HIDDEN)
    return tl.where(inside, scores, HIDDEN)


@triton.jit
def _range(first, size, length, window, BEFORE: tl.constexpr, AFTER: tl.constexpr, WINDOW: tl.constexpr):
    """From where to where the other side of a tile reaches: all, what is before it, or what is after."""
    low, high = 0, length
    if WINDOW:
        low = tl.maximum(low, first - window + 1)
        high = tl.minimum(high, first + size + window - 1)
    if BEFORE:
        high = tl.minimum(high, first + size)
    if AFTER:
        low = tl.maximum(low, first)
    return low, high


@triton.jit
def _load(base, places, token, length, D: tl.constexpr, WIDTH: tl.constexpr):
    """(places, WIDTH): rows of `D` numbers that begin at `base`, `token` apart; zeros outside."""
    columns = tl.arange(0, WIDTH)
    inside = (places < length)[:, None] & (columns < D)[None, :]
    return tl.load(base + places[:, None] * token + columns[None, :], mask=inside, other=0.0)


@triton.jit
def _store(base, places, token, length, values, D: tl.constexpr, WIDTH: tl.constexpr):
    columns = tl.arange(0, WIDTH)
    inside = (places < length)[:, None] & (columns < D)[None, :]
    tl.store(base + places[:, None] * token + columns[None, :], values.to(base.dtype.element_ty), mask=inside)


@triton.jit
def _tile(starts, tiles, TILE: tl.constexpr):
    """This program's document and tile: where the document begins, its length, and the tile's first token."""
    document, first = tl.program_id(0) // tiles, tl.program_id(0) % tiles * TILE
    begin = tl.load(starts + document)
    return begin.to(tl.int64), tl.load(starts + document + 1) - begin, first


@triton.jit(do_not_specialize=OF_A_BATCH)
def forward(
    query, key, value, output, logs, starts, slopes,
    query_token, query_head, key_token, key_head, value_token, value_head,
    total, tiles, groups, scale, window,
    D: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    ALIBI: tl.constexpr, CAUSAL: tl.constexpr, WINDOW: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """`output` (total, heads, D) and `logs` (heads, total)."""
    begin, length, first = _tile(starts, tiles, ROWS)
    if first >= length:
        return
    head = tl.program_id(1).to(tl.int64)
    slope = tl.load(slopes + head) if ALIBI else 0.0
    query += begin * query_token + head * query_head
    key += begin * key_token + head // groups * key_head
    value += begin * value_token + head // groups * value_head
    rows = first + tl.arange(0, ROWS)
    down = rows[:, None]
    q = _load(query, rows, query_token, length, D, WIDTH)
    top = tl.full([ROWS], HIDDEN, tl.float32)
    sums = tl.zeros([ROWS], tl.float32)
    weighted = tl.zeros([ROWS, WIDTH], tl.float32)
    low, high = _range(first, ROWS, length, window, CAUSAL, NO, WINDOW)
    for start in range(low // COLUMNS * COLUMNS, high, COLUMNS):
        columns = start + tl.arange(0, COLUMNS)
        k = _load(key, columns, key_token, length, D, WIDTH)
        v = _load(value, columns, value_token, length, D, WIDTH)
        products = tl.dot(q, tl.trans(k), input_precision=PRECISION)
        across, inside = columns[None, :], (columns < length)[None, :]
        scores = _scored(products, down, across, inside, window, scale, slope, ALIBI, CAUSAL, WINDOW)
        higher = tl.maximum(top, tl.max(scores, 1))
        shrink = tl.exp2(top - higher)
        exponentials = tl.exp2(scores - higher[:, None])
        sums = sums * shrink + tl.sum(exponentials, 1)
        weighted = weighted * shrink[:, None]
        weighted += tl.dot(exponentials.to(v.dtype), v, input_precision=PRECISION)
        top = higher
    heads = tl.num_programs(1)
    output += (begin * heads + head) * D
    _store(output, rows, heads * D, length, weighted / sums[:, None], D, WIDTH)
    tl.store(logs + head * total + begin + rows, top + tl.log2(sums), mask=rows < length)


@triton.jit(do_not_specialize=OF_A_BATCH)
def gradient_of_keys(
    query, key, value, upstream, logs, inner, starts, slopes, to_key, to_value,
    query_token, query_head, key_token, key_head, value_token, value_head, up_token, up_head,
    total, tiles, groups, scale, window, factor,
    D: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    ALIBI: tl.constexpr, CAUSAL: tl.constexpr, WINDOW: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """`to_key` and `to_value` (total, key_heads, D); `inner` (heads, total) is output times gradient."""
    begin, length, first = _tile(starts, tiles, COLUMNS)
    if first >= length:
        return
    own_head = tl.program_id(1)
    columns = first + tl.arange(0, COLUMNS)
    down, inside = columns[:, None], (columns < length)[:, None]
    wide = own_head.to(tl.int64)
    k = _load(key + begin * key_token + wide * key_head, columns, key_token, length, D, WIDTH)
    v = _load(value + begin * value_token + wide * value_head, columns, value_token, length, D, WIDTH)
    of_key = tl.zeros([COLUMNS, WIDTH], tl.float32)
    of_value = tl.zeros([COLUMNS, WIDTH], tl.float32)
    low, high = _range(first, COLUMNS, length, window, NO, CAUSAL, WINDOW)
    for head in range(own_head * groups, (own_head + 1) * groups):
        slope = tl.load(slopes + head) if ALIBI else 0.0
        far = tl.cast(head, tl.int64)
        query_base = query + begin * query_token + far * query_head
        up_base = upstream + begin * up_token + far * up_head
        for start in range(low // ROWS * ROWS, high, ROWS):
            rows = start + tl.arange(0, ROWS)
            q = _load(query_base, rows, query_token, length, D, WIDTH)
            up = _load(up_base, rows, up_token, length, D, WIDTH)
            of_row = far * total + begin + rows
            log = tl.load(logs + of_row, mask=rows < length, other=0.0)
            dot = tl.load(inner + of_row, mask=rows < length, other=0.0)
            products = tl.dot(k, tl.trans(q), input_precision=PRECISION)  # (COLUMNS, ROWS)
            across = rows[None, :]
            scores = _scored(products, across, down, inside, window, scale, slope, ALIBI, CAUSAL, WINDOW)
            weights = tl.exp2(scores - log[None, :])
            of_value += tl.dot(weights.to(up.dtype), up, input_precision=PRECISION)
            of_weights = tl.dot(v, tl.trans(up), input_precision=PRECISION)
            of_scores = weights * (of_weights - dot[None, :])
            of_key += tl.dot(of_scores.to(q.dtype), q, input_precision=PRECISION)
    row = tl.num_programs(1) * D
    place = begin * row + own_head * D
    _store(to_key + place, columns, row, length, of_key * factor, D, WIDTH)
    _store(to_value + place, columns, row, length, of_value, D, WIDTH)


@triton.jit(do_not_specialize=OF_A_BATCH)
def gradient_of_queries(
    query, key, value, upstream, logs, inner, starts, slopes, to_query,
    query_token, query_head, key_token, key_head, value_token, value_head, up_token, up_head,
    total, tiles, groups, scale, window, factor,
    D: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    ALIBI: tl.constexpr, CAUSAL: tl.constexpr, WINDOW: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """`to_query` (total, heads, D)."""
    begin, length, first = _tile(starts, tiles, ROWS)
    if first >= length:
        return
    head = tl.program_id(1).to(tl.int64)
    slope = tl.load(slopes + head) if ALIBI else 0.0
    key += begin * key_token + head // groups * key_head
    value += begin * value_token + head // groups * value_head
    rows = first + tl.arange(0, ROWS)
    down = rows[:, None]
    q = _load(query + begin * query_token + head * query_head, rows, query_token, length, D, WIDTH)
    up = _load(upstream + begin * up_token + head * up_head, rows, up_token, length, D, WIDTH)
    of_row = head * total + begin + rows
    log = tl.load(logs + of_row, mask=rows < length, other=0.0)
    dot = tl.load(inner + of_row, mask=rows < length, other=0.0)
    of_query = tl.zeros([ROWS, WIDTH], tl.float32)
    low, high = _range(first, ROWS, length, window, CAUSAL, NO, WINDOW)
    for start in range(low // COLUMNS * COLUMNS, high, COLUMNS):
        columns = start + tl.arange(0, COLUMNS)
        k = _load(key, columns, key_token, length, D, WIDTH)
        v = _load(value, columns, value_token, length, D, WIDTH)
        products = tl.dot(q, tl.trans(k), input_precision=PRECISION)
        across, inside = columns[None, :], (columns < length)[None, :]
        scores = _scored(products, down, across, inside, window, scale, slope, ALIBI, CAUSAL, WINDOW)
        weights = tl.exp2(scores - log[:, None])
        of_weights = tl.dot(up, tl.trans(v), input_precision=PRECISION)
        of_scores = weights * (of_weights - dot[:, None])
        of_query += tl.dot(of_scores.to(k.dtype), k, input_precision=PRECISION)
    row = tl.num_programs(1) * D
    _store(to_query + begin * row + head * D, rows, row, length, of_query * factor, D, WIDTH)
