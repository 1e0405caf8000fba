"""A plain encoder of BERT's kind in float64, whose parts are chosen one by one.

It reads the weights of a stock model by their stock names, so it shows where a technique puts them.
"""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Parts:
    """What differs from the stock model; `windows` has a largest distance, or None, for each layer."""

    pre_norm: bool = False
    rms: bool = False
    bias: bool = True
    qk_eps: float | None = None
    thetas: tuple[float, ...] = ()
    windows: tuple[int | None, ...] = ()
    gated: bool = False


BERT = {
    "layer": "encoder.layer.{}.",
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "out": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "norm": "output.LayerNorm",
}
NAMES = {
    "bert": BERT,
    "roberta": BERT,
    "electra": BERT,
    "distilbert": {
        "layer": "transformer.layer.{}.",
        "query": "attention.q_lin",
        "key": "attention.k_lin",
        "value": "attention.v_lin",
        "out": "attention.out_lin",
        "attention_norm": "sa_layer_norm",
        "up": "ffn.lin1",
        "down": "ffn.lin2",
        "norm": "output_layer_norm",
    },
    "albert": {
        "layer": "encoder.albert_layer_groups.0.albert_layers.0.",
        "query": "attention.query",
        "key": "attention.key",
        "value": "attention.value",
        "out": "attention.dense",
        "attention_norm": "attention.LayerNorm",
        "up": "ffn",
        "down": "ffn_output",
        "norm": "full_layer_layer_norm",
    },
}


class Encoder:
    """The last hidden states (batch, tokens, hidden) of `family` with stock `weights`, in float64."""

    def __init__(self, family, weights, heads, layers, parts, act="gelu", eps=1e-12):
        self.names, self.weights, self.parts = NAMES[family], weights, parts
        self.heads, self.layers, self.act, self.eps, self.family = heads, layers, act, eps, family

    def __call__(self, ids, mask):
        x = self.embedded(ids)
        entered = x
        for i in range(self.layers):
            x, entered = self.layer(i, x, entered, mask)
        return entered

    def embedded(self, ids):
        x = self.weights["embeddings.word_embeddings.weight"][ids]
        if "embeddings.token_type_embeddings.weight" in self.weights:
            types = self.weights["embeddings.token_type_embeddings.weight"]
            x = x + types[0] * (self.parts.bias or len(types) > 1)
        if not self.parts.thetas:
            first = 1 if self.family == "roberta" else 0  # padding_idx 0, so positions begin at 1
            positions = torch.arange(ids.shape[1]) + first
            x = x + self.weights["embeddings.position_embeddings.weight"][positions]
        x = self.normed("embeddings.LayerNorm", x)
        for projection in ("embeddings_project", "encoder.embedding_hidden_mapping_in"):
            if f"{projection}.weight" in self.weights:
                x = self.linear(projection, x)
        return x

    def layer(self, i, x, entered, mask):
        """`x` is what the sums pass on, `entered` what the next attention reads."""
        at = self.names["layer"].format(i)
        summed = x + self.attention(i, at, entered, mask)
        middle = self.normed(at + self.names["attention_norm"], summed)
        x = summed if self.parts.pre_norm else middle
        summed = x + self.feed_forward(at, middle)
        normed = self.normed(at + self.names["norm"], summed)
        return (summed if self.parts.pre_norm else normed), normed

    def attention(self, i, at, x, mask):
        query, key, value = (
            self.split(self.linear(at + self.names[n], x)) for n in ("query", "key", "value")
        )
        if self.parts.qk_eps is not None:
            query, key = (
                y / (y.pow(2).mean(-1, keepdim=True) + self.parts.qk_eps).sqrt() for y in (query, key)
            )
        if self.parts.thetas:
            query, key = (rotated(y, self.parts.thetas[i]) for y in (query, key))
        scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
        unseen = torch.finfo(scores.dtype).min  # finite, for padding that sees nothing
        scores = scores.masked_fill(~self.seen(i, mask)[:, None], unseen)
        weighted = scores.softmax(-1) @ value
        return self.linear(at + self.names["out"], weighted.transpose(1, 2).flatten(2))

    def seen(self, i, mask):
        """(batch, tokens, tokens), where a query sees a key; `mask` is (batch, tokens) or already that."""
        seen = mask.bool() if mask.ndim == 3 else mask.bool()[:, None, :].expand(-1, mask.shape[1], -1)
        at = torch.arange(mask.shape[1])
        if self.parts.windows and self.parts.windows[i] is not None:
            seen = seen & ((at[:, None] - at[None, :]).abs() <= self.parts.windows[i])
        return seen

    def feed_forward(self, at, x):
        x = self.linear(at + self.names["up"], x)
        if self.parts.gated:
            gate, x = x.chunk(2, -1)
            return self.linear(at + self.names["down"], torch.nn.functional.gelu(gate) * x)
        act = torch.nn.functional.gelu
        if self.act == "gelu_new":
            return self.linear(at + self.names["down"], act(x, approximate="tanh"))
        return self.linear(at + self.names["down"], act(x))

    def split(self, x):
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def linear(self, name, x):
        y = x @ self.weights[f"{name}.weight"].T
        return y + self.weights[f"{name}.bias"] if self.parts.bias and f"{name}.bias" in self.weights else y

    def normed(self, name, x):
        centred = x if self.parts.rms else x - x.mean(-1, keepdim=True)
        y = (
            centred
            / (centred.pow(2).mean(-1, keepdim=True) + self.eps).sqrt()
            * self.weights[f"{name}.weight"]
        )
        biased = self.parts.bias and not self.parts.rms
        return y + self.weights[f"{name}.bias"] if biased else y


def rotated(x, theta):
    """`x` (batch, heads, tokens, c): columns i and i + c / 2 turned by position * theta^(-2 i / c)."""
    half = x.shape[-1] // 2
    inverse = (1.0 / theta ** (torch.arange(0, 2 * half, 2, dtype=torch.float32) / (2 * half))).double()
    turned = torch.complex(x[..., :half].contiguous(), x[..., half:].contiguous())
    angles = torch.arange(x.shape[-2], dtype=torch.float64)[:, None] * inverse
    turned = turned * torch.polar(torch.ones_like(angles), angles)
    return torch.cat([turned.real, turned.imag], -1)
