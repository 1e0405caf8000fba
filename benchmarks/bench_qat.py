"""A training step of ResNet-18 at 64 x 64 (GPU: 224 x 224) with quantization-aware training, against float32.

A step is forward, backward and SGD on random images. Weights and activations have 4 bits, the first and the
last layer 8. `torch.ao` is the same network with torch's generic modules: each layer has torch's `qat` class,
behind a `FakeQuantize` whose observer is on during the calibration and off afterwards.
"""

import torch
import torch.ao.nn.qat as qat
import torch.nn.functional as F
from harness import DEVICE, Variant, Work, compare, parser, record
from torch import nn
from torch.ao.quantization import (
    FakeQuantize,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
    QConfig,
    disable_observer,
)

from cadenza.algorithms import apply_quantization_aware_training, set_activation_bounds
from cadenza.models import resnet
from cadenza.studies.compute_cost import layer_costs

BATCH, SIZE = (32, 64) if DEVICE == "cpu" else (256, 224)
PerChannel = MovingAveragePerChannelMinMaxObserver


def network() -> nn.Module:
    """ResNet-18 for ten classes."""
    torch.manual_seed(0)
    return resnet("resnet18", num_classes=10).module.to(DEVICE)


def weights(bits: int) -> FakeQuantize:
    """The quantizer of weights: symmetric by output channel, bounded by the largest weight of the step."""
    qmax = 2 ** (bits - 1) - 1
    scheme = {"qscheme": torch.per_channel_symmetric, "ch_axis": 0, "averaging_constant": 1.0}
    return FakeQuantize(observer=PerChannel, quant_min=-qmax, quant_max=qmax, dtype=torch.qint8, **scheme)


def activations(bits: int, per_channel: bool) -> FakeQuantize:
    """The quantizer of activations: bounded by averaged minima and maxima, with a zero point."""
    scheme: dict = {"observer": MovingAverageMinMaxObserver, "qscheme": torch.per_tensor_affine}
    if per_channel:
        scheme = {"observer": PerChannel, "qscheme": torch.per_channel_affine, "ch_axis": 1}
    return FakeQuantize(
        quant_min=0, quant_max=2**bits - 1, dtype=torch.quint8, averaging_constant=0.1, **scheme
    )


def generic(per_channel: bool) -> nn.Module:
    """The network with torch's own quantizers."""
    model = network()
    found = [(path, m) for path, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    for path, layer in found:
        bits = 8 if path in ("conv1", "fc") else 4
        layer.qconfig = QConfig(activation=nn.Identity, weight=lambda bits=bits, **_: weights(bits))
        cls = qat.Conv2d if isinstance(layer, nn.Conv2d) else qat.Linear
        owner, _, name = path.rpartition(".")
        parts = activations(bits, per_channel), cls.from_float(layer)
        setattr(model.get_submodule(owner), name, nn.Sequential(*parts).to(DEVICE))
    return model


def freeze(model: nn.Module) -> None:
    """End the calibration of the activations; weights are measured in every step."""
    for module in model.modules():
        if isinstance(module, nn.Sequential) and len(module) and isinstance(module[0], FakeQuantize):
            module[0].apply(disable_observer)


def variant(name: str, model: nn.Module, macs: int) -> Variant:
    """A training step."""
    optimizer = torch.optim.SGD(model.parameters(), 1e-3, momentum=0.9)
    images = torch.randn(BATCH, 3, SIZE, SIZE, device=DEVICE)
    labels = torch.randint(10, (BATCH,), device=DEVICE)

    def step() -> None:
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
        optimizer.zero_grad()

    return Variant(name, step, Work(6.0 * macs * BATCH, BATCH))


def main() -> None:
    rounds = parser(__doc__, rounds=9).parse_args().rounds
    macs = sum(cost.macs for cost in layer_costs(network(), torch.randn(1, 3, SIZE, SIZE, device=DEVICE)))
    for granularity in ("per_channel", "per_tensor"):
        quantized, torch_ao = network(), generic(granularity == "per_channel")
        apply_quantization_aware_training(quantized, granularity=granularity)
        models = {"float32": network(), "cadenza": quantized, "torch.ao": torch_ao}
        variants = [variant(name, model, macs) for name, model in models.items()]
        record(compare("qat", f"{granularity}, calibrating", variants, rounds), "qat")
        set_activation_bounds(quantized)
        freeze(torch_ao)
        record(compare("qat", f"{granularity}, quantized", variants, rounds), "qat")


if __name__ == "__main__":
    main()
