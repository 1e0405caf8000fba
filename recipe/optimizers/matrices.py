"""The matrices that Muon updates: the weights of the linear layers within a model's repeated layers.

Embeddings, the decoder that is tied to one, heads, biases, norms and learned scales are none of them: Muon is
made for the maps between hidden states (Jordan et al., kellerjordan.github.io/posts/muon).
"""

from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.nn import Parameter
from transformers.pytorch_utils import Conv1D

from cadenza.algorithms.glu import GatedFFN, GatedIntermediate
from cadenza.recipe.parallelism import is_layer

# Weights of several maps in one matrix, by the name of their module, and the number of the maps.
STACKED = {"Wqkv": 3, "c_attn": 3, "Wi": 2, "gate_up_proj": 2}


class Stack(NamedTuple):
    """How many maps a weight holds, of equal size, and along which dimension."""

    maps: int
    dim: int

    def pieces(self, tensor: Tensor) -> tuple[Tensor, ...]:
        """Views of the maps' parts of `tensor`."""
        return tensor.chunk(self.maps, self.dim)


def layer_matrices(model: nn.Module) -> dict[Parameter, Stack]:
    """The trained weights of (out, in), or (in, out) in GPT-2's Conv1D, in the repeated layers of `model`."""
    found: dict[Parameter, Stack] = {}
    for layer in filter(is_layer, model.modules()):
        for parent in layer.modules():
            for name, module in parent.named_children():
                weight = module.weight if isinstance(module, nn.Linear | Conv1D) else None
                if isinstance(weight, Parameter) and weight.requires_grad and weight.ndim == 2:
                    found[weight] = _stack(name, module, parent)
    return found


def _stack(name: str, module: Any, parent: nn.Module) -> Stack:
    dim = int(isinstance(module, Conv1D))
    gated = isinstance(parent, GatedIntermediate) or (isinstance(parent, GatedFFN) and name == "lin1")
    maps = 2 if gated else STACKED.get(name, 1)
    return Stack(maps if module.weight.size(dim) % maps == 0 else 1, dim)
