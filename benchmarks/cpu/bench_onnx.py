"""Inference of ResNet-18 and BERT: ONNX Runtime with integers of 8 bits and in float32, and eager torch.

    OMP_NUM_THREADS=1 PYTHONPATH=benchmarks python benchmarks/cpu/bench_onnx.py --rounds 9

Weights are random, bounds are of one batch. `onnx float32` is the same network exported by torch
before it is quantized. The first variant of each case is that file, so that speed-ups are relative to it.
"""

import copy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from harness import Variant, Work, compare, parser, record
from torch import nn
from torchvision.models import resnet18
from transformers import BertConfig, BertModel

from cadenza.algorithms import quantize_after_training
from cadenza.quantization import export_onnx
from cadenza.quantization.deployed.calls import named_inputs
from cadenza.quantization.deployed.runtime import session

SIDE, LENGTH, TEXTS = 224, 128, 4


def images() -> tuple[nn.Module, Any, Work]:
    """ResNet-18 and an image."""
    return resnet18().eval(), torch.randn(1, 3, SIDE, SIDE), Work(2 * 1.814e9, 1)


def texts(hidden: int, layers: int) -> tuple[nn.Module, Any, Work]:
    """BERT of `hidden` units and four texts without padding."""
    sizes = {"hidden_size": hidden, "num_attention_heads": hidden // 64, "intermediate_size": 4 * hidden}
    model = BertModel(BertConfig(num_hidden_layers=layers, **sizes), add_pooling_layer=False).eval()
    ids, tokens = torch.randint(30522, (TEXTS, LENGTH)), TEXTS * LENGTH
    products = 2.0 * tokens * layers * 12 * hidden**2
    return model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, Work(products, tokens)


def exported_float(model: nn.Module, example: Any, path: Path) -> None:
    """torch's own export of the network."""
    named = isinstance(example, dict)
    torch.onnx.export(
        model,
        () if named else (example,),
        path,
        kwargs=example if named else None,
        input_names=list(named_inputs(example)),
        dynamo=True,
        opset_version=21,
        external_data=False,
        verbose=False,
    )


def runs(name: str, path: Path, example: Any, work: Work) -> Variant:
    """A run of a file on one thread."""
    runtime, arrays = session(path, threads=1), {k: x.numpy() for k, x in named_inputs(example).items()}
    return Variant(name, lambda: runtime.run(None, arrays), work)


def case(name: str, model: nn.Module, example: Any, work: Work, rounds: int) -> None:
    """Measure a network in three ways."""
    with TemporaryDirectory() as folder, torch.no_grad():
        full, integers = Path(folder, "full.onnx"), Path(folder, "integers.onnx")
        exported_float(model, example, full)
        quantized = copy.deepcopy(model)
        quantize_after_training(quantized, [example])
        print(export_onnx(quantized, integers, example, tolerance=1.0))
        rounded = Path(folder, "rounded.onnx")
        print(export_onnx(quantized, rounded, example, tolerance=1.0, sums="int8"))
        eager = Variant("torch float32", lambda: _call(model, example), work)
        files = {"onnx float32": full, "onnx int8": integers, "onnx int8, sums int8": rounded}
        variants = [*(runs(kind, path, example, work) for kind, path in files.items()), eager]
        record(compare("onnx", name, variants, rounds), "onnx")


def _call(model: nn.Module, example: Any) -> Any:
    return model(**example) if isinstance(example, dict) else model(example)


def main() -> None:
    rounds = parser(__doc__, rounds=9).parse_args().rounds
    torch.manual_seed(0)
    case("ResNet-18, 224 x 224", *images(), rounds)
    case("BERT, hidden 256, 4 layers", *texts(256, 4), rounds)
    case("BERT, hidden 768, 2 layers", *texts(768, 2), rounds)


if __name__ == "__main__":
    main()
