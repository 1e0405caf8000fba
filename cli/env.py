"""`cadenza env`: what a bug report needs."""

import argparse
import importlib.metadata
import platform
import sys

PACKAGES = (
    *("cadenza", "torch", "torchvision", "transformers", "tokenizers", "mosaicml", "mosaicml-streaming"),
    *("bitsandbytes", "peft", "flash-attn", "triton", "datasets", "numpy"),
)


def run(arguments: list[str]) -> int:
    """Print the versions, the devices and the kernels."""
    parser = argparse.ArgumentParser(prog="cadenza env", description="Print what a bug report needs.")
    parser.parse_args(arguments)
    print(f"python {platform.python_version()} on {platform.platform()}")
    for name in PACKAGES:
        print(f"{name} {version(name)}")
    print("\n".join(devices()))
    from cadenza.attention.kernels.table import table

    print(f"attention kernels:\n{table()}")
    return 0


def version(name: str) -> str:
    """The version of an installed package."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "isn't installed"


def devices() -> list[str]:
    """A line for the CPU, and one for each CUDA device."""
    import torch

    found = [f"CPU: {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"]
    for number in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(number)
        found.append(
            f"CUDA {number}: {facts.name}, {facts.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}"
        )
    return found if len(found) > 1 else [*found, f"no CUDA device ({sys.platform})"]
