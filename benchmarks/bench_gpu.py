"""MosaicBERT-base on a GPU: real tokens/s and model FLOPs utilization against stock Hugging Face BERT, in
bf16.

At 128 and 512 columns, without padding and with half of it, for each kernel that runs on the machine. MFU
is the share of the device's bf16 peak (H100 and H200: 989 TFLOP/s) that the necessary operations make. Run
the kernels' tests first: `make bench-gpu` does.
"""

import torch
from bert import batch, config, encoder_flops, head_flops, options, step
from harness import Row, Variant, Work, compare, record
from transformers import BertForMaskedLM

from cadenza.algorithms import (
    apply_alibi,
    apply_flash_attention,
    apply_glu,
    apply_low_precision_norm,
    apply_sparse_prediction,
    apply_unpadding,
    apply_vocab_padding,
)
from cadenza.surgery.kernels import KERNELS, Needs, lacks

PEAK = {"H100": 989e12, "H200": 989e12, "A100": 312e12}
TOKENS = 2**15


def mosaicbert(kernel: str) -> BertForMaskedLM:
    """MosaicBERT-base by surgery."""
    model = BertForMaskedLM(config("base")).cuda().train()
    for apply in (apply_glu, apply_vocab_padding, apply_alibi, apply_unpadding, apply_sparse_prediction):
        apply(model)
    apply_flash_attention(model, kernel)
    apply_low_precision_norm(model)
    return model


def run(width: int, padding: float, rounds: int) -> None:
    """Stock BERT, then MosaicBERT on each kernel that can."""
    count = TOKENS // width
    shortest = round(width * (1 - 2 * padding)) or 1
    lengths = torch.linspace(shortest, width, count).round().int().tolist()
    data, stock = batch(lengths, width), BertForMaskedLM(config("base")).cuda().train()
    work = [
        Work(encoder_flops(cfg, lengths, gated) + head_flops(cfg, data.labelled), sum(lengths))
        for cfg, gated in ((stock.config, False), (mosaicbert("auto").config, True))
    ]
    able = [k for k in KERNELS if lacks(k, Needs("cuda", "bfloat16", alibi=True)) is None]
    variants = [Variant("stock", step(stock, data.inputs), work[0])]
    variants += [Variant(k, step(mosaicbert(k), data.inputs), work[1]) for k in able]
    rows = compare("gpu", f"{width} columns, {padding:.0%} padding", variants, rounds, torch.bfloat16)
    record(rows, "gpu")
    for row in rows:
        print(f"{row.variant:<10} MFU {mfu(row):.1%}, real tokens/s {row.tokens_per_second:,.0f}")


def mfu(row: Row) -> float:
    """Of this device's bf16 peak; NaN where that isn't known."""
    name = torch.cuda.get_device_name()
    return row.rate * 1e9 / next((peak for key, peak in PEAK.items() if key in name), float("nan"))


if __name__ == "__main__":
    chosen = options(__doc__, ["base"])
    if not torch.cuda.is_available():
        raise SystemExit("bench_gpu needs a CUDA device: NOT MEASURED HERE")
    for width in (128, 512):
        for padding in (0.0, 0.5):
            run(width, padding, chosen.rounds)
