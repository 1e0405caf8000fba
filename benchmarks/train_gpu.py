"""MosaicBERT-base trained in amp_bf16 and in fp32 from the same seed: does bfloat16 learn as float32 does?

`yamls/mosaicbert.yaml` on python_docs, 200 steps of 64 sequences, without dropout, whose masks would differ.
fp32 is IEEE float32: no product is rounded to TF32, which Composer allows otherwise. Records both curves, and
prints the largest difference between their moving averages over 20 steps.
"""

import argparse
import tempfile
from pathlib import Path

import torch
from composer import Callback
from composer.devices import DeviceCPU, DeviceGPU
from harness import append

from cadenza.recipe import load, play

RECIPES = Path(__file__).parent.parent / "yamls"
PRECISIONS = ("amp_bf16", "fp32")
WINDOW = 20
SMALL = [
    "data.source=python_docs",
    "data.long_documents=split",
    "data.eval_documents=4",
    "data.num_workers=0",
    "tokenizer.name=wordpiece",
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
    """The loss of each step."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def batch_end(self, state, logger) -> None:
        self.seen.append(float(state.total_loss_dict["loss/train/total"]))


def curve(precision: str, chosen: argparse.Namespace, folder: str) -> list[float]:
    """The losses of a run in this precision."""
    sizes = [f"train.{key}={chosen.batch}" for key in ("global_batch_size", "device_train_microbatch_size")]
    run = [
        f"train.precision={precision}",
        f"train.max_duration={chosen.steps}ba",
        f"train.run_folder={folder}",
    ]
    recipe = load(
        [str(RECIPES / "mosaicbert.yaml")], [*SMALL, *sizes, *run, *(TINY if chosen.dry_run else [])]
    )
    settings, losses = play.trainer_settings(recipe), Losses()
    settings["callbacks"].append(losses)
    settings["device"] = DeviceCPU() if chosen.dry_run else DeviceGPU(allow_tf32=False)
    model, tokenizer = play.model_and_tokenizer(recipe)
    train, evaluation = play.dataspecs(recipe, tokenizer, settings["algorithms"])
    trainer = play.build_trainer(recipe, settings, model, train, evaluation)
    trainer.fit()
    trainer.close()
    return losses.seen


def difference(curves: dict[str, list[float]]) -> float:
    """The largest one between the moving averages of two curves."""
    width = min(WINDOW, *map(len, curves.values()))
    low, high = (torch.tensor(each).double().unfold(0, width, 1).mean(1) for each in curves.values())
    return float((low - high).abs().max())


def record(curves: dict[str, list[float]]) -> Path:
    """Append a row for each step."""
    steps = zip(*curves.values(), strict=True)
    rows = [{"step": n, **dict(zip(curves, losses, strict=True))} for n, losses in enumerate(steps, 1)]
    return append(rows, "gpu_curves")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--dry-run", action="store_true", help="tiny, on a CPU, fp32 twice; records nothing")
    chosen = parser.parse_args()
    if not (chosen.dry_run or torch.cuda.is_available()):
        raise SystemExit("train_gpu needs a CUDA device: NOT MEASURED HERE")
    if chosen.dry_run:
        chosen.steps, chosen.batch = 4, 4
    with tempfile.TemporaryDirectory() as folder:
        asked = {name: "fp32" if chosen.dry_run else name for name in PRECISIONS}
        curves = {name: curve(precision, chosen, folder) for name, precision in asked.items()}
    for name, losses in curves.items():
        print(f"{name}: {losses[0]:.4f} at first, {losses[-1]:.4f} at last")
    print(f"the moving averages over {WINDOW} steps differ by at most {difference(curves):.4f} nats")
    if not chosen.dry_run:
        print(f"recorded: {record(curves)}")
    elif difference(curves):
        raise SystemExit("the same precision from the same seed gave other losses")


if __name__ == "__main__":
    main()
