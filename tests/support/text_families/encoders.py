"""Fields of encoders."""

from typing import Any

from text_families.sizes import T5

DISENTANGLED = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "max_relative_positions": 16}

ENCODERS: dict[str, dict[str, Any]] = {
    "big_bird": {"block_size": 1, "num_random_blocks": 1},
    "convbert": {"conv_kernel_size": 3, "num_groups": 2},
    "deberta": DISENTANGLED,
    "deberta-v2": {
        **DISENTANGLED,
        "position_biased_input": False,
        "position_buckets": 4,
        "norm_rel_ebd": "layer_norm",
        "conv_kernel_size": 3,
        "conv_act": "tanh",
    },
    "ernie": {"use_task_id": True},
    "esm": {"position_embedding_type": "rotary", "emb_layer_norm_before": True, "token_dropout": True},
    "esmc": {"num_key_value_heads": 4},
    "flaubert": {},
    "funnel": {"block_sizes": [2, 2], "d_head": 8, "d_inner": 48},
    "ibert": {},
    "layoutlm": {"max_2d_position_embeddings": 64},
    "longformer": {"attention_window": [4, 8]},
    "luke": {"entity_vocab_size": 20, "entity_emb_size": 16},
    "mobilebert": {"intra_bottleneck_size": 16},
    "modernbert": {"local_attention": 8, "global_attn_every_n_layers": 2},
    "mpnet": {},
    "neomme": {
        "head_dim": 16,
        "embedding_rank": 16,
        "patch_size": 4,
        "per_layer_config": {1: {"sliding_window": 8}, 3: {"sliding_window": None}},
    },
    "nystromformer": {"conv_kernel_size": 3},
    "reformer": {
        "attention_head_size": 8,
        "attn_layers": ["local", "lsh"],
        "axial_pos_shape": [8, 8],
        "axial_pos_embds_dim": [16, 16],
        "feed_forward_size": 48,
        "local_attn_chunk_length": 4,
        "lsh_attn_chunk_length": 4,
        "num_buckets": 4,
        "hash_seed": 0,
    },
    "roc_bert": {
        "pronunciation_embed_dim": 8,
        "pronunciation_vocab_size": 20,
        "shape_embed_dim": 8,
        "shape_vocab_size": 20,
    },
    "roformer": {"rotary_value": True},
    "squeezebert": {"embedding_size": 32},
    "tapas": {},
    "ultrabert": {"prediction_head_size": 16},
    "xlm": {},
    "xlnet": {"d_inner": 48},
    "xmod": {"languages": ["en_XX", "de_DE"], "default_language": "de_DE"},
    "mt5": T5,
    "t5": T5,
    "umt5": T5,
    "molmo2_text": {"additional_vocab_size": 4},
    "tipsv2_text_model": {},
}
