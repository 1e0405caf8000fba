"""Fields of models with recurrence or convolution, beside attention or alone."""

from typing import Any

from text_families.sizes import LATENT, MULTIPLIED

LINEAR = ["linear_attention", "full_attention"] * 2
CONVOLUTION = ["conv", "full_attention"] * 2
STATE_SPACE = {"expand": 2, "conv_kernel": 3, "time_step_rank": 4}
INKLING = {
    "layer_types": ["hybrid_sliding", "hybrid"] * 2,
    "swa_num_attention_heads": 4,
    "swa_num_key_value_heads": 2,
    "swa_head_dim": 8,
    "sliding_window_size": 4,
    "d_rel": 4,
    "rel_extent": 8,
    "log_scaling_n_floor": 4,
    "conv_kernel_size": 3,
    "unpadded_vocab_size": 90,
}
CLIPPED = {"qk_l2_clip_threshold": 2.0, "rel_l2_clip_threshold": 2.0}

HYBRIDS: dict[str, dict[str, Any]] = {
    "bailing_hybrid": {**LATENT, "layer_group_size": 2, "short_conv_kernel_size": 3},
    "bamba": {"attn_layer_indices": [1], "mamba_chunk_size": 4},
    "falcon_h1": {
        "mamba_d_ssm": 64,
        "mamba_chunk_size": 4,
        "mamba_rms_norm": True,
        "lm_head_multiplier": 0.5,
        "embedding_multiplier": 2.0,
        "key_multiplier": 0.5,
        "attention_out_multiplier": 0.7,
        "attention_in_multiplier": 1.3,
        "ssm_in_multiplier": 1.2,
        "ssm_out_multiplier": 0.8,
        "ssm_multipliers": [0.7, 0.8, 0.9, 1.1, 1.2],
        "mlp_multipliers": [0.8, 1.2],
    },
    "granitemoehybrid": {
        **MULTIPLIED,
        "layer_types": LINEAR,
        "shared_intermediate_size": 24,
        "position_embedding_type": "rope",
        "mamba_chunk_size": 4,
    },
    "inkling_text": INKLING,
    "inkling2_text": {**INKLING, **CLIPPED, "n_layers_per_attn_res_block": 2},
    "inkling2_loop_text": {
        **INKLING,
        **CLIPPED,
        "n_layers_per_attn_res_block": 1,
        "loop_layer_index_start": 1,
        "loop_layer_index_end": 3,
        "loop_gate_rank": 4,
    },
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "kimi_linear": {**LATENT, "layer_types": LINEAR, "linear_head_dim": 8, "linear_num_heads": 4},
    "lfm2": {"layer_types": CONVOLUTION, "block_multiple_of": 8},
    "lfm3": {"layer_types": ["conv", "full_attention", "conv", "sliding_attention"]},
    "lfm2_moe": {"layer_types": CONVOLUTION, "num_dense_layers": 1},
    "minimax": {
        "block_size": 4,
        "full_attn_alpha_factor": 1.5,
        "linear_attn_beta_factor": 0.7,
        "mlp_alpha_factor": 1.2,
    },
    "nemotron_h": {
        "ssm_state_size": 8,
        "mamba_num_heads": 4,
        "mamba_head_dim": 16,
        "n_groups": 2,
        "conv_kernel": 3,
        "chunk_size": 4,
        "moe_shared_expert_intermediate_size": 24,
        "moe_latent_size": 16,
    },
    "qwen3_next": {"mlp_only_layers": [0]},
    "qwen4_exp_text": {
        "layer_types": ["linear_attention", "indexed_attention"] * 2,
        "hc_count": 2,
        "hc_lowrank": 8,
        "ple_layer_ids": [1, 3],
        "ple_conv_kernel_size": 3,
        "heads_per_ngram": 2,
        "ngram_vocab_size_base": 50,
        "make_ngram_vocab_size_divisible_by": 2,
        "split_ngram_parts": 2,
        "indexer_n_heads": 2,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 8,
        "indexer_budget": 4,
        "indexer_compress_ratio": 2,
    },
    "recurrent_gemma": {
        "lru_width": 32,
        "attention_window_size": 4,
        "block_types": ["recurrent", "attention"],
        "w_init_variance_scale": 1.0,
        "logits_soft_cap": 2.0,
    },
    "zamba": {"num_hidden_layers": 3, "layers_block_type": ["linear_attention", "hybrid", "hybrid"]},
    "zamba2": {
        "num_key_value_heads": 4,
        "num_hidden_layers": 3,
        "layers_block_type": ["linear_attention", "hybrid", "hybrid"],
        "mamba_ngroups": 2,
        "n_mamba_heads": 4,
        "chunk_size": 4,
        "num_mem_blocks": 2,
        "use_shared_attention_adapter": True,
        "adapter_rank": 4,
        "use_mem_rope": True,
    },
    "zaya": {
        "layer_types": ["hybrid", "hybrid_sliding"] * 2,
        "num_experts_per_tok": 1,
        "router_hidden_size": 8,
    },
    "falcon_mamba": STATE_SPACE,
    "mamba": STATE_SPACE,
    "mamba2": {**STATE_SPACE, "head_dim": 16, "n_groups": 2, "chunk_size": 4},
}
