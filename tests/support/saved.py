"""Models to save, when a loaded one is the same, and the sets of techniques that `tests/kept` holds."""

import torch
from cases import CASES
from families import batch, build

from cadenza.algorithms import GLU, ALiBi, PostTrainingQuantization, QuantizationAwareTraining, VocabPadding
from cadenza.surgery import ledger

SMALL = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
KEPT = {
    "alibi_glu_vocab_padding": ("bert", SMALL, lambda: [ALiBi(), GLU("swiglu"), VocabPadding(32)]),
    "nf4": (
        "llama",
        {"num_hidden_layers": 1},
        lambda: [PostTrainingQuantization("nf4-dq", except_=["*.q_proj"])],
    ),
    "quantization_aware_training": (
        "bert",
        SMALL,
        lambda: [QuantizationAwareTraining(4, 8, edge_bits=8, calibrate_until="2ba")],
    ),
}


def operated(family, names):
    model = build(family)
    for name in names:
        CASES[name].apply(model)
    return model


def ledgers(model):
    return {path: ledger(module) for path, module in model.named_modules() if ledger(module)}


def same(model, other):
    """Tensors, types and surgeries."""
    mine, theirs = model.state_dict(), other.state_dict()
    assert list(mine) == list(theirs)
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert [type(m) for m in model.modules()] == [type(m) for m in other.modules()]
    assert ledgers(model) == ledgers(other)
    fresh = ("_name_or_path", "architectures", "dtype")  # of a model that was never in a folder
    stored = {k: v for k, v in model.config.to_dict().items() if k not in fresh}
    assert stored == {k: v for k, v in other.config.to_dict().items() if k in stored}


def kept_logits(model: torch.nn.Module, family: str) -> torch.Tensor:
    """(3, 13, words) of a fixed batch without padding."""
    with torch.no_grad():
        return model(input_ids=batch(family, seed=7)["input_ids"]).logits.contiguous()
