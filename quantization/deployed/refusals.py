"""What `export_onnx` doesn't export, said before anything is traced or written."""

import importlib.util
from pathlib import Path

import torch
from composer.models import ComposerModel
from torch import nn

from cadenza.quantization.deployed.integer_layer import quantized_layers
from cadenza.quantization.stored.quantized_linear import Quantized
from cadenza.quantization.training.fake_quantized import FakeQuantized
from cadenza.surgery.errors import SurgeryError
from cadenza.surgery.ledger import history

NEEDED = ("onnx", "onnxscript", "onnxruntime")
# Those whose graph tests compare; others compute with lengths of the batch or with kernels of a device.
EXPORTED = {"ALiBi", "GLU", "QuantizationAwareTraining"}


def require_exportable(model: nn.Module, path: Path) -> None:
    """Check all that can be known before the graph is traced.

    Raises:
        SurgeryError: the reason.
    """
    for why in (_software(), _place(path), _model(model), _layers(model)):
        if why is not None:
            raise SurgeryError(f"export_onnx: {why}")


def _software() -> str | None:
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        return f"{missing[0]} isn't installed; pip install cadenza[onnx]"
    if not hasattr(torch.onnx, "ops"):
        return f"torch {torch.__version__} can't put QuantizeLinear into a graph; torch 2.8 and later can"
    return None


def _place(path: Path) -> str | None:
    if path.suffix != ".onnx":
        return f"{path} must end with .onnx"
    return None if path.parent.is_dir() else f"{path.parent} is not a folder; create it"


def _model(model: nn.Module) -> str | None:
    if isinstance(model, ComposerModel):
        return "the model is Composer's, with a loss; pass the network in it, model.module or model.model"
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_floating_point() and (tensor.dtype != torch.float32 or tensor.device.type != "cpu"):
            return f"{name} is {tensor.dtype} on {tensor.device}; move the model: model.float().cpu()"
    others = [entry.name for entry in history(model) if entry.name not in EXPORTED]
    if others:
        known = ", ".join(sorted(EXPORTED))
        return f"{others[0]} changed the model, and its graph can't be exported; only that of {known} can"
    return None


def _layers(model: nn.Module) -> str | None:
    for path, module in model.named_modules():
        if isinstance(module, Quantized):
            return f"{path} stores quantized weights; ONNX gets integers that were trained or calibrated"
    layers = quantized_layers(model)
    if not layers:
        return "no layer is quantized; train with quantization_aware_training, or quantize_after_training"
    for path, layer in layers.items():
        if layer.waiting:
            return f"{path} still computes in full precision; train further, until after start"
        if layer.activation_bits is not None and layer.calibrating:
            return f"{path} has no bounds yet; calibrate or train further, or leave the layer out"
        others = [cls.__name__ for cls in type(layer)._retyped_from[1] if cls is not FakeQuantized]
        if others:
            return f"{path} is changed by {others[0]}, too, which integers can't express"
    return None
