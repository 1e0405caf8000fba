"""MosaicBERT-base trained in amp_bf16 and in fp32 from the same seed: does bfloat16 learn like float32?

`yamls/mosaicbert.yaml` is trained on python_docs for 200 steps of 64 sequences, without dropout, whose masks
would differ. fp32 is IEEE float32; TF32, which Composer allows otherwise, is off. Both loss curves are
recorded, and the largest difference between their moving averages over 20 steps is printed.
"""

import argparse
import tempfile
from pathlib import Path

import torch
from composer import Callback
from composer.devices import DeviceCPU, DeviceGPU
from harness import append, gpu_options, parser

from cadenza.recipe import load
from cadenza.recipe.run import built_of, task_of
from cadenza.recipe.trainer import trainer_settings

RECIPES = Path(__file__).parent.parent / "yamls"
PRECISIONS = ("amp_bf16", "fp32")
WINDOW = 20
SMALL = [
    "data.source=python_docs",
    "data.long_documents=split",
    "data.eval_documents=4",
    "data.num_workers=0",
    "tokenizer.name=wordpiece",
    "tokenizer.lowercase=true",
    "tokenizer.vocab_size=10000",
    "model.config.hidden_dropout_prob=0.0",
    "train.save_interval=null",
    "train.progress_bar=false",
]
TINY = [
    "model.config.hidden_size=64",
    "model.config.num_hidden_layers=2",
    "model.config.num_attention_heads=2",
    "model.config.intermediate_size=128",
    "tokenizer.vocab_size=1000",
    "data.max_seq_len=32",
]


class Losses(Callback):
    """Collects the loss of each step."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def batch_end(self, state, logger) -> None:
        self.seen.append(float(state.total_loss_dict["loss/train/total"]))


def curve(precision: str, chosen: argparse.Namespace, folder: str) -> list[float]:
    """The losses of a run in `precision`."""
    sizes = [f"train.{key}={chosen.batch}" for key in ("global_batch_size", "device_train_microbatch_size")]
    run = [
        f"train.precision={precision}",
        f"train.max_duration={chosen.steps}ba",
        f"train.run_folder={folder}",
    ]
    recipe = load(
        [str(RECIPES / "mosaicbert.yaml")], [*SMALL, *sizes, *run, *(TINY if chosen.dry_run else [])]
    )
    settings, losses = trainer_settings(recipe), Losses()
    settings["callbacks"].append(losses)
    settings["device"] = DeviceCPU() if chosen.dry_run else DeviceGPU(allow_tf32=False)
    task = task_of(recipe)
    trainer = built_of(task, settings).trainer
    trainer.fit()
    trainer.close()
    return losses.seen


def difference(curves: dict[str, list[float]]) -> float:
    """The largest difference between the moving averages of two curves."""
    width = min(WINDOW, *map(len, curves.values()))
    first, second = (torch.tensor(each).double().unfold(0, width, 1).mean(1) for each in curves.values())
    return float((first - second).abs().max())


def record(curves: dict[str, list[float]]) -> Path:
    """Append a row for each step to the result file."""
    steps = zip(*curves.values(), strict=True)
    rows = [{"step": n, **dict(zip(curves, losses, strict=True))} for n, losses in enumerate(steps, 1)]
    return append(rows, "gpu_curves")


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--steps", type=int, default=200)
    options.add_argument("--batch", type=int, default=64)
    chosen = gpu_options(options)
    if chosen.dry_run:
        chosen.steps, chosen.batch = 4, 4
    with tempfile.TemporaryDirectory() as folder:
        used = {name: "fp32" if chosen.dry_run else name for name in PRECISIONS}
        curves = {name: curve(precision, chosen, folder) for name, precision in used.items()}
    for name, losses in curves.items():
        print(f"{name}: {losses[0]:.4f} at first, {losses[-1]:.4f} at last")
    print(f"the moving averages over {WINDOW} steps differ by at most {difference(curves):.4f} nats")
    if not chosen.dry_run:
        print(f"recorded: {record(curves)}")
    elif difference(curves):
        raise SystemExit("the same precision from the same seed gave other losses")


if __name__ == "__main__":
    main()
