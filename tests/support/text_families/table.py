"""The families that the mappings for language models list."""

from typing import Any

from text_families.decoders import DECODERS
from text_families.encoders import ENCODERS
from text_families.hybrids import HYBRIDS
from text_families.mixtures import MIXTURES

# These need the common sizes only.
COMMON = """
albert apertus apertus1p5_text arcee bart beam bert bigbird_pegasus biogpt bitnet blenderbot
blenderbot-small bloom camembert clip_text_model cwm data2vec-text diffllama distilbert electra ernie4_5
eurobert exaone exaone4 exaone_moe flint fnet gemma glm glm4 gpt-sw3 gpt2 gpt_bigcode gpt_neox
gpt_neox_japanese gte helium internlm3 iquestcoder jais2 jina_embeddings_v3 lara_mini llama marian mbart
megatron-bert mimo_v2_flash minimax_m2 ministral3 mistral mixtral moshi mvp nanochat nemotron nomic_bert
olmo2 olmo3 olmo_hybrid openai-gpt pegasus persimmon plbart qwen3_5_moe_text qwen3_5_text rembert roberta
roberta-prelayernorm rwkv sarvam_moe seed_oss solar_open starcoder2 trocr xglm xlm-roberta xlm-roberta-xl
xlstm yoso
"""


LISTED: dict[str, dict[str, Any]] = {
    **{name: {} for name in COMMON.split()},
    **ENCODERS,
    **DECODERS,
    **MIXTURES,
    **HYBRIDS,
}
