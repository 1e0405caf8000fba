"""The model families that techniques are tested on, each as small as it can be."""

from typing import Any

import torch
from transformers import (
    AlbertConfig,
    BertConfig,
    DistilBertConfig,
    ElectraConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    ModernBertConfig,
    PreTrainedModel,
    Qwen3Config,
    RobertaConfig,
)
from transformers.models.auto.modeling_auto import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
)

VOCABULARY = 90
POSITIONS = 32
DROPOUT = 0.1

SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": POSITIONS,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
ENCODER = {"hidden_dropout_prob": DROPOUT, "attention_probs_dropout_prob": DROPOUT}
LOCAL = {
    "cls_token_id": 1,
    "sep_token_id": 2,
    "local_attention": 8,
    "global_attn_every_n_layers": 2,
}
DISTIL = {"dim": 32, "n_heads": 4, "n_layers": 2, "hidden_dim": 48}

CONFIGS: dict[str, tuple[type, dict[str, Any]]] = {
    "bert": (BertConfig, ENCODER),
    "roberta": (RobertaConfig, ENCODER),
    "distilbert": (DistilBertConfig, DISTIL),
    "electra": (ElectraConfig, {**ENCODER, "embedding_size": 16}),
    "albert": (AlbertConfig, {**ENCODER, "embedding_size": 16}),
    "modernbert": (ModernBertConfig, LOCAL),
    "llama": (LlamaConfig, {"num_key_value_heads": 2}),
    "qwen3": (Qwen3Config, {"num_key_value_heads": 2, "head_dim": 8}),
    "mistral": (MistralConfig, {"num_key_value_heads": 2, "sliding_window": 16}),
    "gpt2": (GPT2Config, {"n_embd": 32, "n_head": 4, "n_layer": 2, "n_positions": POSITIONS}),
}
DECODERS = ("llama", "qwen3", "mistral", "gpt2")
ENCODERS = tuple(name for name in CONFIGS if name not in DECODERS)
LEARNED_POSITIONS = ("bert", "roberta", "distilbert", "electra", "albert", "gpt2")


def build(
    family: str, *, seed: int = 0, attention: str = "sdpa", auto: Any = None, **overrides: Any
) -> PreTrainedModel:
    """A small random language model of `family`, in eval mode; with another head if `auto` is given."""
    config_class, own = CONFIGS[family]
    config = config_class(**{**SIZES, **own, **overrides})
    auto = auto or (AutoModelForCausalLM if family in DECODERS else AutoModelForMaskedLM)
    torch.manual_seed(seed)
    model = auto.from_config(config, attn_implementation=attention).eval()
    # A bias of zero hides mistakes; so does a norm of weight one.
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, mean=float("bias" not in name), std=0.1)
    return model


def classifier(family: str, *, num_labels: int = 3, **options: Any) -> PreTrainedModel:
    """A small random model of `family` that classifies sequences."""
    return build(family, auto=AutoModelForSequenceClassification, num_labels=num_labels, **options)


def batch(
    family: str, *, rows: int = 3, length: int = 13, padding: str | None = "right", seed: int = 0
) -> dict[str, torch.Tensor]:
    """Token ids, mask and labels; row r has 3 r padding tokens on the given side."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, VOCABULARY, (rows, length), generator=generator)
    mask = torch.ones_like(ids)
    for row in range(rows if padding else 0):
        pad = slice(length - 3 * row, length) if padding == "right" else slice(0, 3 * row)
        mask[row, pad] = 0
    ids = ids.masked_fill(mask == 0, 0)
    chosen = torch.rand(ids.shape, generator=generator) < 0.4
    labels = ids.masked_fill((mask == 0) | ~chosen, -100)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def real_logits(model: PreTrainedModel, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """The logits at real tokens, (tokens, vocabulary)."""
    logits = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
    return logits[inputs["attention_mask"].bool()]
