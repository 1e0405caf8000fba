"""A training step with the loss in chunks: stock, one chunk, and the default chunk.

    OMP_NUM_THREADS=1 PYTHONPATH=benchmarks python benchmarks/cpu/bench_chunked_loss.py --rounds 5

The models are a decoder of SmolLM2's shape (hidden 576, 49,152 words) with every token labelled, and a masked
LM of BERT's base width (30,522 words) with 30 % labelled. They have one layer, so that the output layer and
the loss are most of a step, or none: the output layer and the loss alone, beside the embeddings.
"""

import copy
from itertools import product
from typing import Any

import torch
from harness import Variant, Work, compare, parser, record, table
from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, BertConfig, LlamaConfig

from cadenza.algorithms import apply_chunked_loss

LENGTH = 1024
ONE = 10**6  # rows in a chunk: all of them


def decoder(layers: int) -> nn.Module:
    """SmolLM2's shape."""
    heads = {"num_attention_heads": 9, "num_key_value_heads": 3, "tie_word_embeddings": True}
    config = LlamaConfig(
        vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=layers, **heads
    )
    return AutoModelForCausalLM.from_config(config)


def encoder(layers: int) -> nn.Module:
    """BERT's base width, without dropout."""
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return AutoModelForMaskedLM.from_config(
        BertConfig(num_hidden_layers=layers, max_position_embeddings=LENGTH, **still)
    )


CASES = {"SmolLM2": (decoder, 1.0), "BERT base": (encoder, 0.3)}


def variants(make: Any, labelled: float, tokens: int, layers: int) -> list[Variant]:
    """Stock, and the loss in one chunk and in chunks of the default size, after a check of equal losses."""
    torch.manual_seed(0)
    model = make(layers).train()
    ids = torch.randint(5, 30000, (max(1, tokens // LENGTH), LENGTH))
    labels = ids.where(torch.rand(ids.shape) < labelled, -100)
    words = model.get_output_embeddings().weight
    flops = 6 * float((labels != -100).sum()) * words.numel()
    found, losses = [], []
    for name, rows in (("stock", 0), ("one chunk", ONE), ("default", None)):
        own = copy.deepcopy(model)
        if rows != 0:
            apply_chunked_loss(own, rows=rows)
        losses.append(step_of(own, ids, labels)())
        found.append(Variant(name, step_of(own, ids, labels), Work(flops, ids.numel())))
    assert max(losses) - min(losses) < 1e-6 * losses[0], losses
    return found


def step_of(model: Any, ids: torch.Tensor, labels: torch.Tensor) -> Any:
    """A forward and a backward."""

    def step() -> float:
        model.zero_grad(set_to_none=True)
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        return float(loss.detach())

    return step


def main() -> None:
    arguments = parser(__doc__, rounds=5)
    arguments.add_argument("--tokens", type=int, nargs="+", default=[4096, 16384])
    arguments.add_argument("--layers", type=int, nargs="+", default=[0, 1])
    arguments.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    options = arguments.parse_args()
    for name, layers, tokens in product(options.cases, options.layers, options.tokens):
        case = f"{name}, {layers} layers, {tokens:,} tokens"
        rows = compare("chunked_loss", case, variants(*CASES[name], tokens, layers), options.rounds)
        print(table(rows), flush=True)
        record(rows, "chunked_loss")


if __name__ == "__main__":
    main()
