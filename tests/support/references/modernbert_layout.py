"""A published ModernBERT with random weights, and a BERT that was made into one here."""

import torch
from families import build

from cadenza.algorithms import apply_glu, apply_no_bias, apply_pre_norm, apply_rotary

WORDS, HIDDEN, INNER, HEADS, LAYERS = 96, 48, 40, 4, 7
OLD = {  # the fields that answerdotai/ModernBERT-base was published with, before transformers 5
    "architectures": ["ModernBertForMaskedLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 1,
    "classifier_activation": "gelu",
    "classifier_bias": False,
    "classifier_dropout": 0.0,
    "classifier_pooling": "mean",
    "cls_token_id": 1,
    "decoder_bias": True,
    "deterministic_flash_attn": False,
    "embedding_dropout": 0.0,
    "eos_token_id": 2,
    "global_attn_every_n_layers": 3,
    "global_rope_theta": 160000.0,
    "gradient_checkpointing": False,
    "hidden_activation": "gelu",
    "hidden_size": HIDDEN,
    "initializer_cutoff_factor": 2.0,
    "initializer_range": 0.02,
    "intermediate_size": INNER,
    "layer_norm_eps": 1e-05,
    "local_attention": 8,
    "local_rope_theta": 10000.0,
    "max_position_embeddings": 8192,
    "mlp_bias": False,
    "mlp_dropout": 0.0,
    "model_type": "modernbert",
    "norm_bias": False,
    "norm_eps": 1e-05,
    "num_attention_heads": HEADS,
    "num_hidden_layers": LAYERS,
    "pad_token_id": 3,
    "position_embedding_type": "absolute",
    "sep_token_id": 2,
    "tie_word_embeddings": True,
    "torch_dtype": "float32",
    "vocab_size": WORDS,
}


def layout(bias=True):
    """Names and shapes of the published file, without the tied decoder."""
    shapes = {
        "model.embeddings.tok_embeddings.weight": (WORDS, HIDDEN),
        "model.embeddings.norm.weight": (HIDDEN,),
        "model.final_norm.weight": (HIDDEN,),
        "head.dense.weight": (HIDDEN, HIDDEN),
        "head.norm.weight": (HIDDEN,),
    }
    for number in range(LAYERS):
        layer = f"model.layers.{number}"
        shapes |= {
            f"{layer}.attn.Wqkv.weight": (3 * HIDDEN, HIDDEN),
            f"{layer}.attn.Wo.weight": (HIDDEN, HIDDEN),
            f"{layer}.mlp_norm.weight": (HIDDEN,),
            f"{layer}.mlp.Wi.weight": (2 * INNER, HIDDEN),
            f"{layer}.mlp.Wo.weight": (HIDDEN, INNER),
        }
        if number:
            shapes[f"{layer}.attn_norm.weight"] = (HIDDEN,)
    return shapes | ({"decoder.bias": (WORDS,)} if bias else {})


def drawn(bias=True, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return {
        name: (0.2 * torch.randn(shape, generator=generator)).to(dtype)
        for name, shape in layout(bias).items()
    }


def from_stock_bert(**fields):
    own = {"type_vocab_size": 1, "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
    model = build("bert", num_hidden_layers=4, **{**own, **fields})
    for apply in (apply_pre_norm, apply_no_bias, apply_rotary, apply_glu):
        apply(model)
    return model
