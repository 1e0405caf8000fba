"""How a model predicts the tokens of a text, compared with the unquantized one, as llama.cpp reports it.

Source: `llama-perplexity --kl-divergence` of llama.cpp. All of it at temperature 1.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cadenza.studies.ptq_sweep.measures.reference import log_probabilities

PERCENTILES = (1, 5, 50, 95, 99, 99.9, 100)
OF_WINDOWS = ("kl", "nll", "nll_reference", "change", "square_change", "same_top")


def on_text(model: Any, windows: Tensor, expected: Any) -> dict[str, Any]:
    """The measures of `model` on `windows` (rows, length).

    Args:
        expected: log-probabilities of the unquantized model, (rows, length - 1, vocabulary).

    Returns:
        Lists of each window's mean over its tokens after the first:
        `kl`: KL(p_reference || p_model), nats. `nll`, `nll_reference`: nats a token. `change`: p_model -
        p_reference of the token in the text; `square_change`: its square. `same_top`: how often the most
        likely token is the same. And `kl_percentiles`: percentile -> KL, over the tokens of all windows.
    """
    found: dict[str, Any] = {name: [] for name in OF_WINDOWS}
    kl = []
    for window, theirs in zip(windows, expected, strict=True):
        ours = log_probabilities(model, window)
        each = of_tokens(torch.from_numpy(np.array(theirs)).to(ours.device), ours, window[1:].to(ours.device))
        for name, values in each.items():
            found[name].append(values.double().mean().item())
        kl.append(each["kl"].double().cpu().numpy())
    at = np.percentile(np.concatenate(kl), PERCENTILES)
    return {**found, "kl_percentiles": {f"{p:g}": float(v) for p, v in zip(PERCENTILES, at, strict=True)}}


def of_tokens(theirs: Tensor, ours: Tensor, tokens: Tensor) -> dict[str, Tensor]:
    """The measures of each token, (tokens,): see `on_text`.

    Args:
        theirs, ours: log-probabilities of the unquantized and of the other model, (tokens, vocabulary).
        tokens: the tokens of the text, (tokens,).
    """
    p, q = (x.gather(-1, tokens[:, None])[:, 0] for x in (theirs, ours))
    change = q.exp() - p.exp()
    return {
        "kl": (theirs.exp() * (theirs - ours)).sum(-1),
        "nll": -q,
        "nll_reference": -p,
        "change": change,
        "square_change": change.square(),
        "same_top": (theirs.argmax(-1) == ours.argmax(-1)).float(),
    }


def perplexity(nll: Sequence[float]) -> float:
    """Of windows with as many tokens each, from their nats a token."""
    return float(np.exp(np.mean(nll)))
