"""Inference of ResNet-18 and BERT: ONNX Runtime with integers of 8 bits and in float32, and eager torch.

    OMP_NUM_THREADS=1 PYTHONPATH=benchmarks python benchmarks/cpu/bench_onnx.py --rounds 9
    ... --profile     what the operations of each file take, in place of the comparison

Weights are random, bounds are of one batch. `onnx float32` is the same network exported by torch
before it is quantized. The first variant of each case is that file, so that speed-ups are relative to it.
"""

import copy
import json
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnxruntime
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


def profile(name: str, path: Path, example: Any, runs: int = 30) -> None:
    """Print the time of a run of a file on one thread, and the shares of its kinds of operations."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.enable_profiling = 1, True
    options.profile_file_prefix = str(path)
    runtime = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    arrays = {key: x.numpy() for key, x in named_inputs(example).items()}
    for _ in range(runs):
        runtime.run(None, arrays)
    times: Counter[str] = Counter()
    for event in json.loads(Path(runtime.end_profiling()).read_text()):
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            times[event["args"]["op_name"]] += event["dur"]
    total = times.total()
    shares = ", ".join(f"{kind} {time / total:.0%}" for kind, time in times.most_common(6))
    print(f"{name}: {total / runs / 1000:.1f} ms: {shares}")


def case(name: str, model: nn.Module, example: Any, work: Work, rounds: int) -> None:
    """Measure a network in three ways; with `rounds` 0 profile it."""
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
        if not rounds:
            for kind, path in files.items():
                profile(f"{name}, {kind}", path, example)
            return
        variants = [*(runs(kind, path, example, work) for kind, path in files.items()), eager]
        record(compare("onnx", name, variants, rounds), "onnx")


def _call(model: nn.Module, example: Any) -> Any:
    return model(**example) if isinstance(example, dict) else model(example)


def main() -> None:
    options = parser(__doc__, rounds=9)
    options.add_argument("--profile", action="store_true")
    chosen = options.parse_args()
    rounds = 0 if chosen.profile else chosen.rounds
    torch.manual_seed(0)
    case("ResNet-18, 224 x 224", *images(), rounds)
    case("BERT, hidden 256, 4 layers", *texts(256, 4), rounds)
    case("BERT, hidden 768, 2 layers", *texts(768, 2), rounds)


if __name__ == "__main__":
    main()
