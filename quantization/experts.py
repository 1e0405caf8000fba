"""Weights that no linear layer or convolution holds: those of experts, and of other layers of torch."""

from torch import nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

OTHERS = (_ConvTransposeNd, nn.Bilinear, nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention)


def expert_weights(model: nn.Module) -> dict[str, str]:
    """The 3-D parameters of `model` that stay in full precision: path and reason.

    transformers 5 multiplies by the matrices of a mixture's experts without an `nn.Linear`. So there is no
    layer to quantize. A parameter with an axis of length 1, such as a class token, is no stack of matrices.
    """
    reasons = {}
    for path, module in model.named_modules():
        if isinstance(module, _ConvNd):  # a kernel of one spatial axis is 3-D as well
            continue
        for name, weight in module._parameters.items():
            if weight is not None and weight.ndim == 3 and min(weight.shape) > 1:
                shape = " x ".join(map(str, weight.shape))
                why = f"it holds {shape} numbers in {type(module).__name__}, and is no nn.Linear's weight"
                reasons[f"{path}.{name}" if path else name] = why
    return reasons


def other_layers(model: nn.Module) -> dict[str, str]:
    """The layers of `model` that multiply by weights, but whose kind is never quantized: path and reason."""
    others = {path: module for path, module in model.named_modules() if isinstance(module, OTHERS)}
    return {path: f"weights of {type(m).__name__} stay in full precision" for path, m in others.items()}
