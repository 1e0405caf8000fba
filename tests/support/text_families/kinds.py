"""What kind of model a family is, where the mappings of transformers don't tell."""

_RECURRENT = "falcon_mamba mamba mamba2 rwkv xlstm"

# Attention in some layers, or beside it in each: recurrence or convolution over earlier tokens.
_HYBRID = """
bailing_hybrid bamba falcon_h1 glm5_next_text granitemoehybrid inkling2_loop_text inkling2_text
inkling_text jamba kimi_linear lara_mini lfm2 lfm2_moe lfm3 minimax nemotron_h olmo_hybrid
qwen3_5_moe_text qwen3_5_text qwen3_next qwen4_exp_text recurrent_gemma zamba zamba2 zaya
"""

# A token sees later ones, though the family has no head for masked tokens.
_ENCODERS = """
align_text_model altclip_text_model bridgetower_text_model canine
chinese_clip_text_model clap_text_model cpmant embedding_gemma2_text flava_text_model layoutlmv3 led lilt
longt5 m2m_100 markuplm nllb-moe openai_privacy_filter pegasus_x sam3_lite_text_text_model
siglip2_text_model siglip_text_model splinter switch_transformers t5gemma2_text visual_bert xlnet
"""

# Listed as encoders of text, with a causal mask.
_CAUSAL_ENCODERS = "clip_text_model molmo2_text"

RECURRENT, HYBRID, ENCODERS, CAUSAL_ENCODERS = (
    frozenset(names.split()) for names in (_RECURRENT, _HYBRID, _ENCODERS, _CAUSAL_ENCODERS)
)
