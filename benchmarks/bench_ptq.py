"""A token, and a prompt of 256, through a decoder in each format against the same in full precision.

SmolLM2-135M's shape in float32 on a CPU, Llama-3-8B's in bfloat16 on a GPU, weights drawn anew.
"""

import argparse

import torch
from harness import Variant, Work, compare, record
from transformers import LlamaConfig, LlamaForCausalLM

from cadenza.algorithms import apply_post_training_quantization
from cadenza.surgery.lowbit import FORMATS

CUDA = torch.cuda.is_available()
SMOLLM2 = {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "vocab_size": 49152}
LLAMA3 = {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "vocab_size": 128256}
HEADS = {"num_attention_heads": 9, "num_key_value_heads": 3}
HEADS3 = {"num_attention_heads": 32, "num_key_value_heads": 8}


def decoder(form: str | None) -> LlamaForCausalLM:
    """The decoder in `form`, or as it is."""
    torch.manual_seed(0)
    config = (
        LlamaConfig(**LLAMA3, **HEADS3) if CUDA else LlamaConfig(**SMOLLM2, **HEADS, tie_word_embeddings=True)
    )
    with torch.device("cuda" if CUDA else "cpu"):
        model = LlamaForCausalLM._from_config(config, dtype=torch.bfloat16 if CUDA else torch.float32).eval()
    if form is not None:
        apply_post_training_quantization(model, form)
    return model


def variant(name: str, model: LlamaForCausalLM, ids: torch.Tensor) -> Variant:
    """A forward of `ids`; operations are those of the linear layers and the head."""

    def step() -> torch.Tensor:
        with torch.no_grad():
            return model(ids, use_cache=False).logits

    c = model.config
    kv = c.num_key_value_heads / c.num_attention_heads
    layer = c.hidden_size * (c.hidden_size * (2 + 2 * kv) + 3 * c.intermediate_size)
    weights = c.num_hidden_layers * layer + c.vocab_size * c.hidden_size
    return Variant(name, step, Work(2 * weights * ids.numel(), ids.numel()))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    models = {"full": decoder(None), **{form: decoder(form) for form in FORMATS}}
    for length in (1, 256):
        ids = torch.arange(length)[None].to(models["full"].device)
        case = "a token" if length == 1 else f"a prompt of {length}"
        variants = [variant(name, model, ids) for name, model in models.items()]
        record(compare("ptq", case, variants, rounds, next(models["full"].parameters()).dtype), "ptq")


if __name__ == "__main__":
    main()
