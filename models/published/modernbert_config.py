"""ModernBERT's config as BERT's config and surgeries, and back; what has no equal is refused by name."""

from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import BertConfig, ModernBertConfig

from cadenza.algorithms import GLU, NoBias, PreNorm, Rotary, SlidingWindow
from cadenza.models.errors import ModelError, in_short
from cadenza.surgery import Surgery, SurgeryError

FULL, SLIDING = "full_attention", "sliding_attention"
SIZES = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
SAME = (
    *SIZES,
    "max_position_embeddings",
    "initializer_range",
    "pad_token_id",
    "bos_token_id",
    "eos_token_id",
)
RENAMED = {"norm_eps": "layer_norm_eps", "classifier_activation": "hidden_act"}
GATES = {"gelu": "geglu", "silu": "swiglu", "relu": "reglu"}

# Fields that don't change what a masked LM computes: of other heads, of a first init, of kernels. BERT's
# config keeps those that a published config has, in one field of this name.
ASIDE = "modernbert"
LAID_ASIDE = ("cls_token_id", "sep_token_id", "initializer_cutoff_factor", "local_attention")
LAID_ASIDE += (
    "classifier_pooling",
    "classifier_dropout",
    "deterministic_flash_attn",
    "sparse_pred_ignore_index",
)

FIXED = {  # what a masked LM of BERT after the surgeries has, and why nothing else
    "attention_bias": (False, "no_bias takes the biases of all layers"),
    "mlp_bias": (False, "a gated feed-forward has none"),
    "norm_bias": (False, "no_bias takes the biases of all norms"),
    "classifier_bias": (False, "no_bias takes that of the head's first layer"),
    "tie_word_embeddings": (True, "BERT's decoder is its table of words"),
    "sparse_prediction": (False, "apply_sparse_prediction does it on the loaded model"),
}


def to_bert(folder: Path, fields: dict[str, Any]) -> tuple[BertConfig, list[Surgery]]:
    """BERT's config and the surgeries that make it the ModernBERT of `fields`, those of `config.json`.

    Raises:
        ModelError: a field has no equal; the message names it, and what it must be.
    """
    try:
        config = _parsed(fields)
        _refuse_others(config)
        return _bert_config(config), _surgeries(config)
    except (ModelError, SurgeryError) as error:
        raise ModelError(f"load_modernbert: {folder / 'config.json'}: {error}") from error


def from_bert(config: BertConfig, surgeries: dict[str, Any], vocabulary: int, inner: int) -> ModernBertConfig:
    """The config of ModernBERT that BERT with `config` is after `surgeries`, their options by class name.

    Args:
        vocabulary: the rows of the table of words.
        inner: the columns of a feed-forward's second projection.

    Raises:
        ModelError: a field of BERT's config has no equal.
    """
    if config.type_vocab_size != 1:
        raise ModelError(f"type_vocab_size is {config.type_vocab_size}; ModernBERT has one token type")
    dropout = config.hidden_dropout_prob, config.attention_probs_dropout_prob
    if len(set(dropout)) > 1:
        raise ModelError(
            f"hidden_dropout_prob is {dropout[0]}, attention_probs_dropout_prob {dropout[1]}; they must be "
            "equal, because ModernBERT's attention_dropout is both"
        )
    fields = {name: getattr(config, name) for name in SAME}
    fields |= {theirs: getattr(config, ours) for theirs, ours in RENAMED.items()}
    fields |= dict.fromkeys(("attention_dropout", "embedding_dropout", "mlp_dropout"), dropout[0])
    fields |= {"cls_token_id": None, "sep_token_id": None, **getattr(config, ASIDE, {})}
    fields |= {"vocab_size": vocabulary, "intermediate_size": inner}
    return ModernBertConfig(**fields | _of_surgeries(surgeries, config.num_hidden_layers))


def _parsed(fields: dict[str, Any]) -> ModernBertConfig:
    """As stock transformers reads it, also with the names of before transformers 5."""
    if (kind := fields.get("model_type")) != ModernBertConfig.model_type:
        raise ModelError(f"model_type is {kind!r}; it must be {ModernBertConfig.model_type!r}")
    try:
        return ModernBertConfig.from_dict(fields)
    except (StrictDataclassError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelError(f"transformers can't read it: {in_short(error)}") from error


def _refuse_others(config: Any) -> None:
    for name, (right, reason) in FIXED.items():
        if (value := getattr(config, name)) != right:
            raise ModelError(f"{name} is {value!r}; it must be {right}, because {reason}")
    if config.hidden_activation not in GATES:
        raise ModelError(
            f"hidden_activation is {config.hidden_activation!r}; glu has {', '.join(GATES)} as activations"
        )
    dropouts = config.embedding_dropout, config.mlp_dropout, config.attention_dropout
    if len(set(dropouts)) > 1:
        raise ModelError(
            f"embedding_dropout, mlp_dropout, attention_dropout are {', '.join(map(str, dropouts))}; they "
            "must be equal, because BERT has one dropout of hidden states"
        )
    columns = config.hidden_size // config.num_attention_heads
    if (rotated := getattr(config, "head_dim", None) or columns) != columns:
        raise ModelError(f"head_dim is {rotated}; it must be hidden_size / num_attention_heads, {columns}")


def _bert_config(config: Any) -> BertConfig:
    fields: dict[str, Any] = {name: getattr(config, name) for name in SAME}
    fields |= {ours: getattr(config, theirs) for theirs, ours in RENAMED.items()}
    fields |= dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob"), config.mlp_dropout)
    fields |= {"type_vocab_size": 1, ASIDE: {name: getattr(config, name) for name in LAID_ASIDE}}
    return BertConfig(**fields)


def _surgeries(config: Any) -> list[Surgery]:
    thetas = [_theta(config.rope_parameters[kind], kind) for kind in (FULL, SLIDING)]
    made = [GLU(GATES[config.hidden_activation]), Rotary(*thetas), PreNorm(), NoBias(config.decoder_bias)]
    return [*made, *_windows(config)]


def _theta(parameters: dict[str, Any], kind: str) -> float | None:
    others = {key: value for key, value in parameters.items() if key != "rope_theta"}
    if others != {"rope_type": "default"}:
        raise ModelError(f"rope_parameters.{kind} has {others}; rotary has rope_type 'default' alone")
    return parameters["rope_theta"]


def _windows(config: Any) -> list[Surgery]:
    """`sliding_window`, unless all layers are global."""
    kinds, full = config.layer_types, [n for n, kind in enumerate(config.layer_types) if kind == FULL]
    if len(full) == len(kinds):
        return []
    every = None if not full else full[1] if len(full) > 1 else len(kinds)
    if any(kind not in (FULL, SLIDING) for kind in kinds) or full != (
        (every and [*range(0, len(kinds), every)]) or []
    ):
        raise ModelError(f"layer_types has {FULL} at {full}; it must be at 0, n, 2n, ..., or nowhere")
    if config.local_attention < 2 or config.local_attention % 2:
        raise ModelError(
            f"local_attention is {config.local_attention}; it must be even, twice sliding_window's window"
        )
    return [SlidingWindow(config.local_attention // 2, every)]


def _kinds(every: int | None, layers: int) -> list[str]:
    """The kind of each layer, where the layers 0, n, 2n, ... are global, or none."""
    return [SLIDING if every is None or n % every else FULL for n in range(layers)]


def _of_surgeries(surgeries: dict[str, Any], layers: int) -> dict[str, Any]:
    rotary, window = surgeries["Rotary"], surgeries.get("SlidingWindow")
    thetas = {FULL: rotary["theta"], SLIDING: rotary["window_theta"] or rotary["theta"]}
    fields: dict[str, Any] = {
        "rope_parameters": {kind: {"rope_type": "default", "rope_theta": thetas[kind]} for kind in thetas},
        "hidden_activation": {gate: act for act, gate in GATES.items()}[surgeries["GLU"]["variant"]],
        "decoder_bias": surgeries["NoBias"]["keep_output"],
        "layer_types": [FULL] * layers,
    }
    if window:
        fields["layer_types"] = _kinds(window["global_every"], layers)
        fields["local_attention"] = 2 * window["window"]
    return fields
