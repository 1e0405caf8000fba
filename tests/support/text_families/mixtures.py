"""Fields of decoders with mixtures of experts."""

from typing import Any

from text_families.sizes import LATENT, MULTIPLIED, SLIDING

WINDOWED = {
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "head_dim": 12,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
}
DBRX_EXPERTS = {"ffn_hidden_size": 24, "moe_num_experts": 4, "moe_top_k": 2}

MIXTURES: dict[str, dict[str, Any]] = {
    "afmoe": {"mup_enabled": True},
    "aria_text": {"moe_num_experts": 4},
    "axk1": LATENT,
    "axk2": LATENT,
    "cohere2_moe": {"layer_types": SLIDING, "num_shared_experts": 1, "logit_scale": 0.5},
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 1.0, "rope_theta": 1000.0},
        "ffn_config": DBRX_EXPERTS,
    },
    "deepseek_v2": {**LATENT, "topk_method": "group_limited_greedy"},
    "deepseek_v3": LATENT,
    "deepseek_v32": LATENT,
    "deepseek_v4": {
        "compress_rates": {"compressed_sparse_attention": 2, "heavily_compressed_attention": 4},
        "swiglu_limit": 1.0,
        "o_groups": 2,
        "o_lora_rank": 8,
        "num_key_value_heads": 1,
        "partial_rotary_factor": 0.5,
    },
    "doge": {"keep_window_size": 4, "is_moe": True, "num_experts": 16},
    "dots1": {"layer_types": SLIDING},
    "dots3_note_text": {
        **LATENT,
        **{f"swa_{size}": value for size, value in WINDOWED.items()},
        "layer_types": ["sliding_attention", "indexed_attention"] * 2,
        "shared_experts_intermediate_size": 24,
        "head_dim": 12,
    },
    "ernie4_5_moe": {"moe_num_experts": 4, "moe_k": 2},
    "flex_olmo": {},
    "glm4_moe": {"use_qk_norm": True},
    "glm4_moe_lite": LATENT,
    "glm_moe_dsa": LATENT,
    "gpt_oss": {"swiglu_limit": 1.0},
    "granitemoe": MULTIPLIED,
    "granitemoe_swa": {**MULTIPLIED, "layer_types": SLIDING, "shared_intermediate_size": 24},
    "granitemoeshared": {**MULTIPLIED, "shared_intermediate_size": 24},
    "hunyuan_v1_moe": {"moe_topk": 2},
    "hy_v3": {},
    "hy_v4": {"swiglu_limit": 1.0},
    "jetmoe": {"kv_channels": 8},
    "kolibri1": {"layer_types": SLIDING},
    "laguna": {
        "layer_types": SLIDING,
        "num_attention_heads_per_layer": [4, 8, 4, 8],
        "moe_router_logit_softcapping": 2.0,
    },
    "llama4_text": {
        "attention_chunk_size": 8,
        "floor_scale": 4,
        "attn_scale": 0.5,
        "intermediate_size_mlp": 48,
        "interleave_moe_layer_step": 2,
    },
    "longcat_flash": {
        **LATENT,
        "head_dim": 4,
        "moe_topk": 2,
        "zero_expert_num": 2,
        "expert_ffn_hidden_size": 24,
    },
    "mellum": {"layer_types": SLIDING, "mlp_layer_types": ["dense", "sparse", "sparse", "sparse"]},
    "minimax_m3_vl_text": {
        "dense_intermediate_size": 48,
        "shared_intermediate_size": 24,
        "swiglu_limit": 1.0,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000.0, "partial_rotary_factor": 0.5},
        "mlp_layer_types": ["dense", "sparse", "sparse", "sparse"],
        "layer_types": ["minimax_m3_sparse", "full_attention"] * 2,
        "index_block_size": 2,
        "index_topk_blocks": 2,
    },
    "olmoe": {"clip_qkv": 1.0},
    "phimoe": {},
    "qwen2_moe": {"use_sliding_window": True, "max_window_layers": 2, "mlp_only_layers": [0]},
    "qwen3_moe": {"use_sliding_window": True, "mlp_only_layers": [0]},
    "sarvam_mla": LATENT,
}
