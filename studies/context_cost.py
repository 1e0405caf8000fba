"""What does a window cost under full, intra-document and anchor attention?

For each window and document length: the operations of a training step of a whole model with --hidden and
--layers (computed), and for one decoder layer of that width the time of forward and backward, and the bytes
kept for backward (both measured here). The modes alternate in the timing.
"""

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm
from transformers import LlamaConfig, LlamaModel

from cadenza.algorithms import apply_anchor_attention
from cadenza.studies import report
from cadenza.studies.checks import count, guarded, plots

MODES = ("full", "intra_document", "anchor")


def lengths_of(window: int, document: int) -> list[int]:
    """The lengths in a window: 1 for the anchor, then equal documents; the last document may be shorter."""
    whole, rest = divmod(window - 1, document)
    return [1, *[document] * whole, *([rest] if rest else [])]


def pairs(mode: str, window: int, document: int) -> float:
    """The number of pairs of a query and a key that are computed."""
    if mode == "full":
        return window * (window + 1) / 2
    own = sum(n * (n + 1) / 2 for n in lengths_of(window, document))
    return own + (window - 1 if mode == "anchor" else 0)


def operations(mode: str, window: int, document: int, hidden: int, layers: int) -> float:
    """Operations of a training step without the LM head; feed-forwards have width 8/3 `hidden`."""
    weights = 12 * hidden**2 * layers
    return 6 * weights * window + 12 * hidden * layers * pairs(mode, window, document)


def layer(mode: str, hidden: int, heads: int) -> LlamaModel:
    """One decoder layer whose attention uses `document_ids` as `mode` says."""
    config = LlamaConfig(
        hidden_size=hidden,
        intermediate_size=hidden * 8 // 3,
        num_hidden_layers=1,
        num_attention_heads=heads,
        vocab_size=32,
        max_position_embeddings=2**20,
    )
    torch.manual_seed(0)
    model = LlamaModel(config).train()
    apply_anchor_attention(model, mode)
    return model


def kept_mib(step: Callable[[], Tensor]) -> float:
    """The MiB that a forward pass keeps for backward; each storage counts once."""
    seen: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = step()  # holds the graph, so that no address is used again
    del output
    return sum(seen.values()) / 2**20


def measure(window: int, document: int, chosen: Any) -> list[report.Row]:
    """A row for each mode; the modes alternate, and the speed-up is the median ratio of their times."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    lengths = torch.tensor(lengths_of(window, document))
    ids = torch.arange(len(lengths)).repeat_interleave(lengths)[None]
    tokens = torch.randint(0, 32, (1, window), device=device)
    models: dict[str, Any] = {mode: layer(mode, chosen.hidden, chosen.heads) for mode in MODES}
    steps = {mode: _step(model.to(device), tokens, ids) for mode, model in models.items()}
    kept = {mode: kept_mib(step) for mode, step in steps.items()}
    times: dict[str, list[float]] = {mode: [] for mode in MODES}
    for _ in range(chosen.rounds):
        for mode, step in steps.items():
            times[mode].append(_seconds(lambda step=step: step().backward()))
    return [_row(mode, window, document, chosen, times, kept) for mode in MODES]


def _row(mode: str, window: int, document: int, chosen: Any, times: dict, kept: dict) -> report.Row:
    ratios = [full / other for full, other in zip(times["full"], times[mode], strict=True)]
    full, own = (operations(m, window, document, chosen.hidden, chosen.layers) for m in ("full", mode))
    return {
        "window": window,
        "document": document,
        "mode": mode,
        "mode and document": mode if mode == "full" else f"{mode}, {document}",
        "TFLOP": own / 1e12,
        "operations saved": full / own,
        "seconds": statistics.median(times[mode]),
        "speed-up": statistics.median(ratios),
        "kept MiB": kept[mode],
    }


def _step(model: Any, tokens: Tensor, ids: Tensor) -> Callable[[], Tensor]:
    def step() -> Tensor:
        model.zero_grad(set_to_none=True)
        return model(input_ids=tokens, document_ids=ids).last_hidden_state.square().mean()

    return step


def _seconds(step: Callable[[], object]) -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    step()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> int:
    """Run the command line and return the exit code."""
    parser = report.parser("context_cost", __doc__)
    parser.add_argument("--windows", type=count(2, 2**20), nargs="+", default=[2048, 4096, 8192, 16_384])
    parser.add_argument("--documents", type=count(), nargs="+", default=[512, 1024])
    parser.add_argument("--hidden", type=count(), default=512)
    parser.add_argument("--heads", type=count(), default=8)
    parser.add_argument(
        "--layers", type=count(), default=30, help="of the model whose operations are computed"
    )
    parser.add_argument("--rounds", type=count(), default=3)
    chosen = parser.parse_args()
    if chosen.hidden % (2 * chosen.heads):
        parser.error(f"--hidden is {chosen.hidden}; it must be a multiple of 2 x --heads, {2 * chosen.heads}")
    return guarded(lambda: study(chosen))


def study(chosen: Any) -> None:
    """Measure and write the reports."""
    plots()
    cases = [(w, d) for w in chosen.windows for d in chosen.documents]
    rows = [row for w, d in tqdm(cases, desc="windows") for row in measure(w, d, chosen)]
    report.write(chosen.out, "context_cost", rows, "window", "seconds", "mode and document")
    report.write(chosen.out, "context_memory", rows, "window", "kept MiB", "mode and document")


if __name__ == "__main__":
    sys.exit(main())
