"""A quantized network as a graph of onnx_ir: traced by torch, with batch norms and half scales folded."""

import copy
import warnings
from collections.abc import Iterable
from typing import Any

import torch
from onnx_ir.passes.common import RemoveUnusedNodesPass
from torch import Tensor, nn
from torch.export import Dim

from cadenza.quantization.deployed.batch_norm import fold_batch_norms
from cadenza.quantization.deployed.biases import quantize_biases
from cadenza.quantization.deployed.calls import mapped, named_inputs, named_outputs
from cadenza.quantization.deployed.few_bits import widen_codes
from cadenza.quantization.deployed.half_steps import move_half_steps
from cadenza.quantization.deployed.integer_layer import OPSET, put_integers
from cadenza.quantization.training.calibration import run_on
from cadenza.surgery.errors import SurgeryError


def traced(model: nn.Module, example: Any, names: Iterable[str]) -> Any:
    """The graph of `model`, a model of onnx_ir, whose outputs are called `names`.

    Raises:
        SurgeryError: torch can't trace the network.
    """
    network = _Listing(put_integers(copy.deepcopy(model)).eval())
    every = mapped(example, lambda x: torch.cat([x, x]) if len(x) == 1 else x)  # a 1 would be traced as one
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program: Any = torch.onnx.export(
                network,
                kwargs={"inputs": every},
                input_names=list(named_inputs(example)),
                output_names=list(names),
                opset_version=OPSET,
                dynamo=True,
                dynamic_shapes={"inputs": mapped(every, _dynamic)},
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        raise SurgeryError(f"export_onnx: torch can't trace the network: {_first_line(error)}") from error
    graph = program.model.graph
    fold_batch_norms(graph)
    move_half_steps(graph)
    widen_codes(graph)
    quantize_biases(graph)
    RemoveUnusedNodesPass()(program.model)
    return program.model


class _Listing(nn.Module):
    """A network that returns a list of tensors."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: Any) -> list[Tensor]:
        return list(named_outputs(run_on(self.network, inputs)).values())


def _dynamic(x: Tensor) -> dict[int, Any]:
    """The batch; of token ids the length; of images the sides, where the network allows it."""
    if x.is_floating_point():
        return {0: Dim.DYNAMIC, **dict.fromkeys(range(2, x.ndim), Dim.AUTO)}
    return dict.fromkeys(range(min(x.ndim, 2)), Dim.DYNAMIC)


def _first_line(error: BaseException) -> str:
    """The first line of the error beneath, which says more than the exporter's."""
    while error.__cause__ is not None:
        error = error.__cause__
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
