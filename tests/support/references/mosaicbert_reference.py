"""MosaicBERT written down plainly, from the paper's formulas (arXiv 2312.17482, sections 2 and 3).

Post-norm BERT without positions; ALiBi in the scores; GeGLU without biases in its first projection. Takes
the weights under the names of the operated model's state dict. No dropout. Loops where loops are plainest.
"""

import math

import torch
from torch import Tensor


def slopes(heads: int) -> list[float]:
    """ALiBi's slopes as its authors define them, recursively for heads that are no power of two."""

    def power_of_two(n: int) -> list[float]:
        start = 2 ** (-(2 ** -(math.log2(n) - 3)))
        return [start * start**i for i in range(n)]

    if math.log2(heads).is_integer():
        return power_of_two(heads)
    lower = 2 ** math.floor(math.log2(heads))
    return power_of_two(lower) + slopes(2 * lower)[0::2][: heads - lower]


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-12) -> Tensor:
    mean = x.mean(-1, keepdim=True)
    variance = ((x - mean) ** 2).mean(-1, keepdim=True)
    return (x - mean) / torch.sqrt(variance + eps) * weight + bias


def gelu(x: Tensor) -> Tensor:
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def attention(x: Tensor, w: dict[str, Tensor], p: str, heads: int, mask: Tensor) -> Tensor:
    batch, length, hidden = x.shape
    size = hidden // heads
    out = torch.zeros_like(x)
    position = torch.arange(length, dtype=x.dtype)
    q, k, v = (x @ w[f"{p}.{n}.weight"].T + w[f"{p}.{n}.bias"] for n in ("query", "key", "value"))
    columns = []
    for head, slope in enumerate(slopes(heads)):
        part = slice(head * size, (head + 1) * size)
        scores = q[..., part] @ k[..., part].transpose(1, 2) / math.sqrt(size)
        scores = scores - slope * (position[None, :] - position[:, None]).abs()
        scores = scores.masked_fill(mask[:, None, :] == 0, -math.inf)
        columns.append(torch.softmax(scores, dim=-1) @ v[..., part])
    out = torch.cat(columns, dim=-1)
    assert out.shape == (batch, length, hidden)
    return out


def layer(x: Tensor, w: dict[str, Tensor], p: str, heads: int, mask: Tensor) -> Tensor:
    def norm(y: Tensor, name: str) -> Tensor:
        return layer_norm(y, w[f"{p}.{name}.LayerNorm.weight"], w[f"{p}.{name}.LayerNorm.bias"])

    def dense(y: Tensor, name: str) -> Tensor:
        return y @ w[f"{p}.{name}.dense.weight"].T + w[f"{p}.{name}.dense.bias"]

    attended = attention(x, w, f"{p}.attention.self", heads, mask)
    x = norm(dense(attended, "attention.output") + x, "attention.output")
    gate, value = (x @ w[f"{p}.intermediate.dense.weight"].T).chunk(2, dim=-1)
    return norm(dense(gelu(gate) * value, "output") + x, "output")


def mosaicbert(
    w: dict[str, Tensor], ids: Tensor, mask: Tensor, labels: Tensor, *, heads: int, layers: int, words: int
) -> tuple[Tensor, Tensor]:
    """Logits (batch, length, words) over the real vocabulary and the mean loss over labelled tokens."""
    e = "bert.embeddings"
    x = w[f"{e}.word_embeddings.weight"][ids] + w[f"{e}.token_type_embeddings.weight"][0]
    x = layer_norm(x, w[f"{e}.LayerNorm.weight"], w[f"{e}.LayerNorm.bias"])
    for index in range(layers):
        x = layer(x, w, f"bert.encoder.layer.{index}", heads, mask)
    t = "cls.predictions.transform"
    x = gelu(x @ w[f"{t}.dense.weight"].T + w[f"{t}.dense.bias"])
    x = layer_norm(x, w[f"{t}.LayerNorm.weight"], w[f"{t}.LayerNorm.bias"])
    logits = x @ w[f"{e}.word_embeddings.weight"][:words].T + w["cls.predictions.bias"][:words]
    chosen = labels != -100
    log_probability = torch.log_softmax(logits[chosen], dim=-1)
    return logits, -log_probability.gather(1, labels[chosen][:, None]).mean()
