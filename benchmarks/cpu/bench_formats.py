"""The error of each storage format on the linear layers of a real model, beside its bits a weight.

`of_weight` is the Frobenius norm of the difference over that of the weight, `of_output` that of the layer's
product without its bias, on the inputs that the unquantized model has on a text; both are root mean squares
over the layers. Run it with PYTHONPATH=benchmarks, and give it a model folder and a text.
"""

import math
from collections import defaultdict
from typing import Any

import torch
import torch.nn.functional as F
from harness import append, parser
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer

from cadenza.algorithms import apply_post_training_quantization
from cadenza.data import TextConfig, documents
from cadenza.quantization.stored.formats import FORMATS

ROWS, LENGTH = 8, 128


def inputs_of(model: nn.Module, ids: Tensor) -> dict[str, Tensor]:
    """The input (rows, in) of each linear layer by path, in a forward pass of `ids`."""
    found: dict[str, Tensor] = {}
    linears = {path: m for path, m in model.named_modules() if isinstance(m, nn.Linear)}
    hooks = [
        module.register_forward_hook(lambda _m, given, _out, path=path: found.update({path: given[0]}))
        for path, module in linears.items()
    ]
    with torch.no_grad():
        model(input_ids=ids)
    for hook in hooks:
        hook.remove()
    return {path: x.reshape(-1, x.shape[-1]) for path, x in found.items()}


def errors(model: nn.Module, inputs: dict[str, Tensor], form: str) -> dict[str, Any]:
    """The row of the format `form`: bits a weight of all layers, and both errors."""
    squares, stored, numel = defaultdict(list), 0, 0
    for path, x in inputs.items():
        weight = model.get_submodule(path).weight.detach()
        linear = nn.Linear(*weight.shape[::-1], bias=False)
        linear.weight.data.copy_(weight)
        apply_post_training_quantization(linear, form, only="*")
        layer: Any = linear
        exact, wrong = F.linear(x, weight), F.linear(x, layer.dequantized() - weight)
        squares["of_weight"].append(layer.weight_error**2)
        squares["of_output"].append(float(wrong.norm() / exact.norm()) ** 2)
        stored, numel = stored + layer.stored_bytes, numel + weight.numel()
    means = {name: math.sqrt(sum(each) / len(each)) for name, each in squares.items()}
    return {"format": form, "bits": 8 * stored / numel, **means}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("model", help="a Hugging Face folder")
    options.add_argument("text", help="a file of text, whose held-out documents are the input")
    chosen = options.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(chosen.model)
    model = AutoModel.from_pretrained(chosen.model, dtype=torch.float32).eval()
    texts = list(documents(TextConfig(source=chosen.text), train=False))[: 4 * ROWS]
    rows = [tokenizer(str(text), truncation=True, max_length=LENGTH)["input_ids"] for text in texts]
    whole = [row for row in rows if len(row) == LENGTH][:ROWS]
    inputs = inputs_of(model, torch.tensor(whole))
    name, found = chosen.model.rstrip("/").rpartition("/")[2], []
    for form in FORMATS:
        found.append({"model": name, "layers": len(inputs), **errors(model, inputs, form)})
        print("{model} {format:<7} {bits:6.3f} {of_weight:8.2%} {of_output:8.2%}".format(**found[-1]))
    print(append(found, "formats"))


if __name__ == "__main__":
    main()
