"""The forward time of 1, 8 and 32 rows of a token, and of a prompt of 256, by the format of the weights.

The decoder has random weights and the shape of SmolLM2-135M in float32 on a CPU, or of Llama-3-8B in bfloat16
on a GPU. Each format is compared with full precision.
"""

from functools import partial

import torch
from harness import CUDA, DEVICE, Missed, Variant, Work, compare, parser, record
from transformers import LlamaConfig, LlamaForCausalLM

from cadenza.algorithms import apply_post_training_quantization
from cadenza.quantization.stored.formats import FORMATS

SMOLLM2 = {
    **{"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "vocab_size": 49152},
    **{"num_attention_heads": 9, "num_key_value_heads": 3, "tie_word_embeddings": True},
}
LLAMA3 = {
    **{"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "vocab_size": 128256},
    **{"num_attention_heads": 32, "num_key_value_heads": 8},
}


CASES = {"a token": (1, 1), "8 tokens": (8, 1), "32 tokens": (32, 1), "a prompt of 256": (1, 256)}


def decoder(form: str | None) -> LlamaForCausalLM:
    """The decoder with weights in the format `form`, or in full precision."""
    torch.manual_seed(0)
    config, dtype = (LLAMA3, torch.bfloat16) if CUDA else (SMOLLM2, torch.float32)
    with torch.device(DEVICE):
        model = LlamaForCausalLM._from_config(LlamaConfig(**config), dtype=dtype).eval()
    if form is not None:
        apply_post_training_quantization(model, form)
    return model


def variant(name: str, model: LlamaForCausalLM, ids: torch.Tensor) -> Variant:
    """A forward pass of `ids`; the operations of the linear layers and the head count."""

    def step() -> torch.Tensor:
        with torch.no_grad():
            return model(ids, use_cache=False).logits

    c = model.config
    kv = c.num_key_value_heads / c.num_attention_heads
    layer = c.hidden_size * (c.hidden_size * (2 + 2 * kv) + 3 * c.intermediate_size)
    weights = c.num_hidden_layers * layer + c.vocab_size * c.hidden_size
    return Variant(name, step, Work(2 * weights * ids.numel(), ids.numel()))


def main() -> None:
    rounds = parser(__doc__, rounds=9).parse_args().rounds
    missed, models = Missed(), {"full": decoder(None)}
    models |= {form: missed.attempt(form, partial(decoder, form)) for form in FORMATS}
    for case, (rows, length) in CASES.items():
        ids = torch.arange(length, device=DEVICE).expand(rows, -1)
        ready = missed.ready(case, [variant(name, model, ids) for name, model in models.items() if model])
        record(compare("ptq", case, ready, rounds, next(models["full"].parameters()).dtype), "ptq")
    missed.print()


if __name__ == "__main__":
    main()
