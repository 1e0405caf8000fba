"""Quantized models against the unquantized ones, by format, temperature, top-k and generated length.

    python -m cadenza.studies.ptq_sweep yamls/ptq_sweep.yaml [OVERLAY.yaml ...] [key=value ...]

After "Understanding the Impact of Post-Training Quantization on Large Language Models" (arXiv 2309.05210).
The measures need no judge: the KL divergence from the unquantized model on fixed text, and the likelihood of
generated text under the unquantized model. Each finished cell is written at once; a stopped run resumes.
"""

import gc
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from cadenza.algorithms import apply_post_training_quantization
from cadenza.data.text.config import TextConfig
from cadenza.data.text.finite import Finite
from cadenza.options import Choice, Range, Text, check, option
from cadenza.quantization.stored.formats import FORMATS, require_library
from cadenza.studies import ptq_findings, ptq_metrics, report
from cadenza.studies.checks import StudyError, causal, plots
from cadenza.studies.running import cells
from cadenza.surgery.checkpoint import safe_weights

PLAIN = "none"
SHARED = ("text", "windows", "window", "prompt", "dtype", "seed")  # what a cell depends on beside its keys
COUNT = Range("[1, 2147483647]")
KEYS = ("model", "format", "temperature", "top_k", "max_new_tokens")


@dataclass
class Sweep:
    """The settings. The text gives `windows` pieces of `window` tokens."""

    models: list[str] = option([], "Folders or Hub names.", Text())
    formats: list[str] = option(
        [PLAIN, "nf4", "nf4-dq", "fp4", "fp4-dq", "int8"],
        f"`{PLAIN}`, or formats of `post_training_quantization`.",
        Choice(PLAIN, *FORMATS),
    )
    temperatures: list[float] = option(
        [0.1, 0.3, 0.5, 0.8, 1.0, 1.5], "Of sampling, and of the KL divergence.", Range("(0, 1000]")
    )
    top_k: list[int] = option([50, 200], "The words to sample from.", COUNT)
    max_new_tokens: list[int] = option([50], "The length of a generated text.", COUNT)
    text: str = option(
        "python_docs", "`python_docs`, a file, a folder or a glob, like a recipe's `data.source`.", Text()
    )
    windows: int = option(16, "The number of pieces of text.", COUNT)
    window: int = option(512, "The tokens of a piece.", COUNT)
    prompt: int = option(32, "The first tokens of a piece, which are a prompt.", COUNT)
    dtype: str = option("bfloat16", "Of the weights.", Choice("float32", "bfloat16", "float16"))
    seed: int = option(17, "Of sampling.", Range("[0, 4294967295]"))
    out: str = option("runs/studies", "The folder of the results.", Text())

    def __post_init__(self) -> None:
        check(self, "", ValueError)
        if not self.models:
            raise ValueError("models must name one")
        if self.prompt >= self.window:
            raise ValueError(f"prompt is {self.prompt}; it must be shorter than window, {self.window}")


def run(cfg: Sweep) -> list[report.Row]:
    """Compute the missing cells; returns all rows of these settings, with those of earlier runs."""
    path, settings = Path(cfg.out) / "ptq_sweep.csv", cells.fingerprint(cfg, SHARED)
    every = list(product(cfg.models, cfg.formats, cfg.temperatures, cfg.top_k, cfg.max_new_tokens))
    done = {tuple(row[key] for key in (*KEYS, "settings")) for row in cells.done(path)}
    todo = [cell for cell in every if (*map(str, cell), settings) not in done]
    _check(cfg, todo)
    with tqdm(total=len(every), initial=len(every) - len(todo), unit="cell") as bar:
        for name in dict.fromkeys(cell[0] for cell in todo):
            for row in _of_model(cfg, name, [cell for cell in todo if cell[0] == name], bar):
                cells.append(path, {**row, "settings": settings})
    return [row for row in cells.done(path) if row["settings"] == settings]


def _check(cfg: Sweep, todo: list[tuple]) -> None:
    """Raise what would be wrong with a cell: extras, models, text."""
    plots()
    if any(cell[1] != PLAIN for cell in todo):
        require_library()
    length = max(cfg.window, cfg.prompt + max(cfg.max_new_tokens, default=0))
    for name in dict.fromkeys(cell[0] for cell in todo):
        causal(name, length)
        _windows(cfg, name)


def _of_model(cfg: Sweep, name: str, todo: list[tuple], bar: Any) -> Iterator[report.Row]:
    reference = _load(cfg, name)
    windows = _windows(cfg, name).to(reference.device)
    for form in dict.fromkeys(cell[1] for cell in todo):
        bar.set_postfix_str(f"{name.rstrip('/').rpartition('/')[2]}, {form}")
        model = reference if form == PLAIN else _quantized(cfg, name, form)
        text, common = _on_text(cfg, model, reference, windows)
        for cell in (cell for cell in todo if cell[1] == form):
            own = {"kl": text["kl"][cell[2]], "topk_agreement": text["overlap"][cell[3]]}
            written = _generated(cfg, model, reference, windows, cell)
            yield {**dict(zip(KEYS, cell, strict=True)), **own, **common, **written}
            bar.update()
        del model
        gc.collect()


@torch.no_grad()
def _on_text(cfg: Sweep, model: Any, reference: Any, windows: Tensor) -> tuple[dict[str, Any], report.Row]:
    """The measures on the fixed text, and the columns that all cells of a format share."""
    peak: list[int] = []
    model(windows[:1])
    with ptq_metrics.peak_bytes(reference.device, peak):
        model(windows)
    text = ptq_metrics.on_text(model, reference, windows, cfg.temperatures, cfg.top_k)
    stored = ptq_metrics.weight_bytes(model)
    return text, {
        "perplexity": math.exp(text["nll"]),
        "top1_agreement": text["top1"],
        "weight_bytes": stored,
        "peak_bytes": stored + peak[0],
    }


def _generated(cfg: Sweep, model: Any, reference: Any, windows: Tensor, cell: tuple) -> report.Row:
    prompts = windows[:, : cfg.prompt]
    made = ptq_metrics.write(model, prompts, cfg.seed, *cell[2:])
    ids = made.pop("ids")
    return {**ptq_metrics.of_text(reference, prompts, ids), **made}


def _load(cfg: Sweep, name: str) -> Any:
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(name, dtype=getattr(torch, cfg.dtype), **safe_weights())
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()


def _quantized(cfg: Sweep, name: str, form: str) -> Any:
    model = _load(cfg, name)
    apply_post_training_quantization(model, form)
    return model


def _windows(cfg: Sweep, name: str) -> Tensor:
    """Token ids (windows, window) of pieces that are evenly spread over the text."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(name)
    texts, ids = list(Finite(cfg.text, TextConfig(), "text")), []
    for text in texts:
        ids += tokenizer(text, add_special_tokens=False)["input_ids"]
        if len(ids) > 4 * cfg.windows * cfg.window:
            break
    pieces = torch.tensor(ids[: len(ids) // cfg.window * cfg.window]).view(-1, cfg.window)
    if len(pieces) < cfg.windows:
        found = f"{len(pieces)} windows of {cfg.window} tokens"
        raise StudyError(f"text: {cfg.text} holds {found}, not {cfg.windows}")
    return pieces[:: len(pieces) // cfg.windows][: cfg.windows]


def main(arguments: list[str]) -> int:
    """Run the command line and return the exit code."""

    def study(cfg: Sweep) -> None:
        ptq_findings.write(Path(cfg.out), ptq_findings.as_numbers(run(cfg)))

    return cells.command_line(arguments, Sweep, __doc__, study)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
