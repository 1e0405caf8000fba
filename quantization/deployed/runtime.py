"""ONNX Runtime: a file's outputs, and how much of it runs in integers."""

from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import onnxruntime

INTEGER = ("QLinearConv", "QLinearMatMul", "QGemm", "MatMulIntegerToFloat", "MatMulInteger", "ConvInteger")
FLOAT = ("Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul")


def session(path: Path, threads: int = 0, optimized: Path | None = None) -> Any:
    """A session on the CPU; `optimized` is where the graph is written that the runtime makes of the file."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def outputs(path: Path, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What ONNX Runtime computes, by the names of the outputs."""
    runs = session(path)
    return dict(zip((out.name for out in runs.get_outputs()), runs.run(None, inputs), strict=True))


def products(path: Path) -> Counter[str]:
    """The matrix products and convolutions with constant weights in the optimized graph, by operation."""
    with TemporaryDirectory() as folder:
        optimized = Path(folder) / "optimized.onnx"
        session(path, optimized=optimized)
        graph = onnx.load(str(optimized)).graph
    constants = {tensor.name for tensor in graph.initializer}
    dequantized = {node.output[0] for node in graph.node if constants >= set(node.input[:1])}
    weights = constants | dequantized
    counted = (
        node.op_type
        for node in graph.node
        if node.op_type in INTEGER or (node.op_type in FLOAT and set(node.input[1:2]) <= weights)
    )
    return Counter(counted)
