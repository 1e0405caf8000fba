"""Attention by document as operators of torch, so that a compiled layer is one graph with its attention.

`attention` launches the program `forward`. Its gradient launches `gradient_of_keys` and
`gradient_of_queries`, which compute the scores again; it has no gradient itself.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cadenza.surgery.errors import SurgeryError

LOG2_E = math.log2(math.e)


class Tile(NamedTuple):
    """The queries and keys of a tile, and how Triton runs it."""

    rows: int
    columns: int
    warps: int
    stages: int


# For heads of up to 64, and for wider ones. Each of the first is the fastest of 13 on an H100, over documents
# of 1 to 128, of 128 and of 2,048 tokens (benchmarks/gpu/triton_tiles.py). The second aren't tuned.
TILES = {
    "forward": (Tile(64, 64, 4, 3), Tile(128, 64, 8, 2)),
    "keys": (Tile(128, 64, 4, 2), Tile(64, 64, 4, 2)),
    "queries": (Tile(64, 64, 4, 2), Tile(64, 64, 4, 2)),
}


def tile_of(program: str, head_dim: int) -> Tile:
    """The tile of a program: `forward`, `keys` or `queries`."""
    return TILES[program][head_dim > 64]


@torch.library.custom_op("cadenza::attention", mutates_args=())
def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    starts: Tensor,
    slopes: Tensor | None,
    scaling: float,
    causal: bool,
    window: int,
    longest: int,
) -> tuple[Tensor, Tensor]:
    """The output (total, heads, head_dim), and the logarithm of each query's sum of exponentials, base 2.

    Args:
        query: (total, heads, head_dim).
        key, value: (total, key_heads, head_dim).
        starts: (documents + 1,) int32, the start of each document, then the end.
        slopes: (heads,) float32, of ALiBi, times log2(e); None: without it.
        window: a query sees only keys at a distance below it; -1: no limit.
        longest: the tokens of the longest document.
    """
    programs = _programs()
    window = min(window, longest)
    query, key, value = (_readable(x, longest) for x in (query, key, value))
    total, heads, head_dim = query.shape
    output, logs = query.new_empty(query.shape), query.new_empty(heads, total, dtype=torch.float32)
    tile = tile_of("forward", head_dim)
    tiles = -(-longest // tile.rows)
    with torch.cuda.device_of(query):  # Triton launches on the current device
        programs.forward[(len(starts) - 1) * tiles, heads](
            *(query, key, value, output, logs, starts, logs if slopes is None else slopes),
            *(stride for x in (query, key, value) for stride in x.stride()[:2]),
            *(total, tiles, heads // key.shape[1], scaling * LOG2_E, window),
            **_constants(query, tile, slopes is not None, causal, window >= 0),
        )
    return output, logs


@torch.library.custom_op("cadenza::attention_backward", mutates_args=())
def attention_backward(
    upstream: Tensor,
    inner: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    logs: Tensor,
    starts: Tensor,
    slopes: Tensor | None,
    scaling: float,
    causal: bool,
    window: int,
    longest: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of query, key and value.

    Args:
        upstream: the gradient of the output, (total, heads, head_dim).
        inner: (heads, total) float32, the product of the output and its gradient.
        logs: the second result of `attention`; all others are its arguments.
    """
    programs = _programs()
    window = min(window, longest)
    upstream, query, key, value = (_readable(x, longest) for x in (upstream, query, key, value))
    (total, heads, head_dim), key_heads = query.shape, key.shape[1]
    to_query, to_key, to_value = (x.new_empty(x.shape) for x in (query, key, value))
    given = query, key, value, upstream, logs, inner.contiguous(), starts, logs if slopes is None else slopes
    strides = [stride for x in (query, key, value, upstream) for stride in x.stride()[:2]]
    numbers = heads // key_heads, scaling * LOG2_E, window, scaling
    asked = slopes is not None, causal, window >= 0

    with torch.cuda.device_of(query):
        tile = tile_of("keys", head_dim)
        tiles = -(-longest // tile.columns)
        programs.gradient_of_keys[(len(starts) - 1) * tiles, key_heads](
            *given, to_key, to_value, *strides, total, tiles, *numbers, **_constants(query, tile, *asked)
        )
        tile = tile_of("queries", head_dim)
        tiles = -(-longest // tile.rows)
        programs.gradient_of_queries[(len(starts) - 1) * tiles, heads](
            *given, to_query, *strides, total, tiles, *numbers, **_constants(query, tile, *asked)
        )
    return to_query, to_key, to_value


def _programs() -> Any:
    from cadenza.attention.kernels import triton_programs  # imports Triton

    return triton_programs


def _readable(x: Tensor, longest: int) -> Tensor:
    """`x` with the numbers of a head side by side.

    Raises:
        SurgeryError: a program would count places in a document beyond 32 bits.
    """
    apart = max(x.stride(0), x.shape[1] * x.shape[2])  # of what is read, and of what is written
    if longest * apart >= 2**31:
        raise SurgeryError(
            f"flash_attention kernel 'triton' can't read a document of {longest} tokens whose rows are "
            f"{apart} numbers apart: that is beyond 32 bits; use flex"
        )
    return x if x.stride(-1) == 1 else x.contiguous()


def _constants(query: Tensor, tile: Tile, alibi: bool, causal: bool, window: bool) -> dict[str, Any]:
    """What a program is compiled for."""
    head_dim = query.shape[-1]
    return {
        **{"D": head_dim, "WIDTH": max(16, 1 << (head_dim - 1).bit_length())},
        **{"ROWS": tile.rows, "COLUMNS": tile.columns, "num_warps": tile.warps, "num_stages": tile.stages},
        **{"ALIBI": alibi, "CAUSAL": causal, "WINDOW": window},
        "PRECISION": "ieee" if query.dtype == torch.float32 else "tf32",
    }


@attention.register_fake
def _(query: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    total, heads = query.shape[:2]
    return query.new_empty(query.shape), query.new_empty(heads, total, dtype=torch.float32)


@attention_backward.register_fake
def _(upstream: Tensor, inner: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: Any) -> Any:
    return tuple(x.new_empty(x.shape) for x in (query, key, value))


def _keep(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    ctx.options = inputs[5:]
    ctx.save_for_backward(*inputs[:5], *output)
    ctx.mark_non_differentiable(output[1])


def _gradients(ctx: Any, upstream: Tensor, _: Tensor) -> Any:
    query, key, value, starts, slopes, output, logs = ctx.saved_tensors
    inner = (output.float() * upstream.float()).sum(-1).t()
    found = attention_backward(upstream, inner, query, key, value, logs, starts, slopes, *ctx.options)
    return *found, *[None] * 6


attention.register_autograd(_gradients, setup_context=_keep)
