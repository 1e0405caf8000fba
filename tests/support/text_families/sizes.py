"""The sizes of a small model, under each name that some config gives to them."""

from typing import Any

VOCABULARY = 90
POSITIONS = 64
WIDTH, INNER, LAYERS, HEADS, GROUPS = 32, 48, 2, 4, 2
ALTERNATING = 4  # layers, of a config that has a type for each

_VALUES: list[tuple[Any, str]] = [
    (VOCABULARY, "vocab_size n_words"),
    (WIDTH, "hidden_size d_model n_embd dim emb_dim"),
    (LAYERS, "num_hidden_layers n_layer n_layers num_layers decoder_layers encoder_layers"),
    (HEADS, "num_attention_heads n_head n_heads num_heads attention_heads"),
    (HEADS, "decoder_attention_heads encoder_attention_heads"),
    (GROUPS, "num_key_value_heads"),
    (INNER, "intermediate_size n_inner d_ff hidden_dim ffn_dim ffn_hidden_size"),
    (INNER, "decoder_ffn_dim encoder_ffn_dim"),
    (POSITIONS, "max_position_embeddings n_positions n_ctx max_seq_len"),
    (0, "pad_token_id"),
    (1, "bos_token_id cls_token_id decoder_start_token_id"),
    (2, "eos_token_id sep_token_id"),
    (3, "mask_token_id"),
    (0.3, "initializer_range init_std embed_init_std"),
    (False, "use_cache"),
    (8, "head_dim v_head_dim qk_nope_head_dim index_head_dim linear_key_head_dim linear_value_head_dim"),
    (4, "qk_rope_head_dim"),
    (16, "embedding_size q_lora_rank kv_lora_rank"),
    (4, "sliding_window index_n_heads index_topk"),
    (2.0, "final_logit_softcapping attn_logit_softcapping"),
    (4, "num_experts n_routed_experts num_local_experts"),
    (2, "num_experts_per_tok n_group"),
    (1, "topk_group n_shared_experts first_k_dense_replace"),
    (24, "moe_intermediate_size shared_expert_intermediate_size"),
    (8, "mamba_d_state state_size"),
    (3, "mamba_d_conv linear_conv_kernel_dim"),
    (2, "mamba_expand linear_num_key_heads"),
    (4, "mamba_n_heads linear_num_value_heads mamba_dt_rank"),
    (16, "mamba_d_head"),
]
SIZES = {name: value for value, names in _VALUES for name in names.split()}

# What configs of several families have in common beyond that.
SLIDING = ["sliding_attention", "full_attention"] * 2
LATENT = {"num_key_value_heads": 4}  # keys and values are made of one latent vector for all heads
MULTIPLIED = {
    "embedding_multiplier": 1.5,
    "logits_scaling": 2.0,
    "residual_multiplier": 0.7,
    "attention_multiplier": 0.5,
}
RELATIVE = {"relative_attention_num_buckets": 8, "relative_attention_max_distance": 16}
T5 = {"d_kv": 8, **RELATIVE}
