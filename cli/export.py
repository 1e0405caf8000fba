"""`cadenza export`: the model of a checkpoint as a folder, or its integers as an ONNX file."""

import argparse
import os
from pathlib import Path
from typing import Any

from cadenza.cli.errors import CommandError

OF_FOLDERS, OF_ONNX = ("merge", "onto", "format"), ("tolerance", "sums")


def run(arguments: list[str]) -> int:
    """Write the folder."""
    parser = argparse.ArgumentParser(
        prog="cadenza export",
        description="Write the model of a Composer checkpoint to a folder: a Hugging Face model for "
        "`AutoModel`, the adapter of a LoRA run for peft, or a ResNet for `cadenza.models.load_resnet`. A "
        "name that ends with .onnx is a file for ONNX Runtime: of a run with quantization_aware_training.",
    )
    parser.add_argument(
        "checkpoint", type=Path, help="a .pt file under runs/NAME/checkpoints; for .onnx a run, too"
    )
    parser.add_argument("folder", type=Path, help="created, it must be empty or missing; or FILE.onnx")
    help = "add the adapters of a LoRA run to the weights, and write the whole model"
    parser.add_argument("--merge", action="store_true", help=help)
    help = (
        "the weights that adapters are added to: full (the default), those before a quantization; "
        "dequantized, the numbers that the adapters were trained with; quantized, the same, quantized again"
    )
    parser.add_argument("--onto", choices=("full", "dequantized", "quantized"), help=help)
    help = "weights in nf4, fp4 or int8 as transformers writes them: it loads the folder without cadenza"
    parser.add_argument("--format", choices=("bitsandbytes",), help=help)
    help = "read your own file even before torch 2.10, which can run code that is in a file"
    parser.add_argument("--trust", action="store_true", help=help)
    help = "of an .onnx file: the largest difference of an output from the network's, relative to the largest"
    parser.add_argument("--tolerance", type=float, help=f"{help} (0.02)")
    help = (
        "of an .onnx file: int8 rounds residual sums too, so that more convolutions run in integers (float)"
    )
    parser.add_argument("--sums", choices=("float", "int8"), help=help)
    options = parser.parse_args(arguments)
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # files are local, and read in a moment
    checkpoint, folder = options.checkpoint.expanduser(), options.folder.expanduser()
    if folder.suffix == ".onnx":
        print(f"exported: {_onnx(checkpoint, folder, options)}")
        return 0
    _refuse(options, OF_ONNX, "a .onnx file", "a folder")
    from cadenza.models import export

    chosen = options.trust, options.merge, options.onto, options.format
    print(f"exported: {export(checkpoint, folder, *chosen)}")
    return 0


def _onnx(checkpoint: Path, file: Path, options: argparse.Namespace) -> Any:
    """Write `file`."""
    _refuse(options, OF_FOLDERS, "a folder", "a .onnx file, which holds trained integers")
    from cadenza.cli import onnx_file

    given = {name: value for name in OF_ONNX if (value := getattr(options, name)) is not None}
    return onnx_file.write(checkpoint, file, options.trust, given)


def _refuse(options: argparse.Namespace, names: tuple[str, ...], of: str, here: str) -> None:
    for name in names:
        if getattr(options, name) not in (None, False):
            raise CommandError(f"export: --{name} is an option of {of}, and this is {here}")
