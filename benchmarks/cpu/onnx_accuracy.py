"""What an ONNX file keeps of a quantized network's accuracy: torch against ONNX Runtime.

    python benchmarks/cpu/onnx_accuracy.py images RUN ...          on the evaluation images of its recipe
    python benchmarks/cpu/onnx_accuracy.py texts MODEL FILE.csv    an encoder, quantized after training

RUN was trained with `quantization_aware_training`, and `granularity: per_tensor` lets its products run in
integers. FILE.csv has the columns `text` and `label`; two thirds of it, drawn by a fixed seed, give the
bounds, and train one logistic regression on embeddings in full precision, which scores all three.
"""

import argparse
import csv
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from cadenza.algorithms import quantize_after_training
from cadenza.data import build_image_dataspec
from cadenza.models import export, load_resnet
from cadenza.quantization import export_onnx
from cadenza.quantization.deployed.runtime import session
from cadenza.recipe import load

BATCH = 100
TOLERANCE = 10.0  # of the example's outputs: this script looks at all of them itself


def images(run: Path) -> None:
    """Top-1 of a run's network in torch and in ONNX Runtime, and how far logits differ."""
    recipe: Any = load([str(run / "recipe.yaml")], [])
    data: Any = build_image_dataspec(recipe.data, train=False, batch_size=BATCH, seed=recipe.seed)
    batches = [*data.dataloader]
    labels = torch.cat([batch[1] for batch in batches])
    with TemporaryDirectory() as folder, torch.no_grad():
        network = load_resnet(export(run / "checkpoints/latest-rank0.pt", Path(folder, "model")))
        logits = torch.cat([network(batch[0]) for batch in batches])
        print(f"{run.name}: torch {_share(logits, labels)}, largest logit {logits.abs().max():.1f}")
        for sums in ("float", "int8"):
            path = Path(folder, f"{sums}.onnx")
            export_onnx(network, path, batches[0][0], TOLERANCE, sums)
            runtime = session(path)
            found = [runtime.run(None, {"input": batch[0].numpy()})[0] for batch in batches]
            ours = torch.from_numpy(np.concatenate(found))
            same, off = (ours.argmax(1) == logits.argmax(1)).float().mean(), (ours - logits).abs()
            print(
                f"  sums={sums}: {_share(ours, labels)}, same class {same:.2%}, logits differ by "
                f"{off.mean():.2g} on average, {off.max():.2g} at most"
            )


def _share(logits: torch.Tensor, labels: torch.Tensor) -> str:
    return f"{(logits.argmax(1) == labels).float().mean():.2%}"


def texts(model: str, file: Path) -> None:
    """The score of one classifier on embeddings in full precision, in int8 in torch, and in int8 in ONNX."""
    from sklearn.linear_model import LogisticRegression
    from transformers import AutoModel, AutoTokenizer

    tokenizer, network = AutoTokenizer.from_pretrained(model), AutoModel.from_pretrained(model).eval()
    rows = [*csv.DictReader(file.open(encoding="utf-8", newline=""))]
    random.Random(0).shuffle(rows)
    labels, cut = np.array([row["label"] for row in rows]), len(rows) * 2 // 3

    def batches(chosen: list[dict[str, str]]) -> Iterator[dict[str, torch.Tensor]]:
        for start in range(0, len(chosen), BATCH):
            some = [row["text"] for row in chosen[start : start + BATCH]]
            encoded = tokenizer(some, padding=True, truncation=True, max_length=128, return_tensors="pt")
            yield {name: encoded[name] for name in ("input_ids", "attention_mask")}

    def embedded(hidden: Callable[[dict[str, torch.Tensor]], torch.Tensor]) -> np.ndarray:
        found = []
        for batch in batches(rows):
            mask = batch["attention_mask"][..., None]
            found.append((hidden(batch) * mask).sum(1) / mask.sum(1))
        return torch.cat(found).numpy()

    with TemporaryDirectory() as folder, torch.no_grad():
        found = {"full precision": embedded(lambda batch: network(**batch).last_hidden_state)}
        quantize_after_training(network, batches(rows[:cut]))
        found["torch int8"] = embedded(lambda batch: network(**batch).last_hidden_state)
        path = Path(folder, "encoder.onnx")
        print(export_onnx(network, path, next(batches(rows)), TOLERANCE))
        runtime = session(path)

        def run(batch: dict[str, torch.Tensor]) -> torch.Tensor:
            given = {name: x.numpy() for name, x in batch.items()}
            return torch.from_numpy(runtime.run(["last_hidden_state"], given)[0])

        found["ONNX int8"] = embedded(run)
    judge = LogisticRegression(max_iter=2000).fit(found["full precision"][:cut], labels[:cut])
    for name, vectors in found.items():
        print(f"  {name}: {judge.score(vectors[cut:], labels[cut:]):.2%} of {len(rows) - cut}")


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("kind", choices=("images", "texts"))
    parser.add_argument("paths", nargs="+")
    chosen = parser.parse_args()
    if chosen.kind == "texts":
        model, file = chosen.paths
        return texts(model, Path(file))
    for run in chosen.paths:
        images(Path(run))


if __name__ == "__main__":
    main()
