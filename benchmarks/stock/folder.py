"""Whether an environment without cadenza computes the same from a folder that cadenza writes.

For each format of bitsandbytes: quantize MODEL, save it in the library's layout, let the interpreter STOCK
(torch, transformers, bitsandbytes and accelerate alone) load it and write its logits on TEXT, compare these
with ours, and read the folder back. One line of a table each.

    python benchmarks/stock/folder.py MODEL TEXT STOCK

On a CPU with AVX512_BF16 the library's 4-bit layers compute in bfloat16 in eval mode, whatever the config
says. So the logits are taken twice: as the library computes, and in the dtype of the config.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

TOKENS = 256
FORMATS = ("nf4", "nf4-dq", "fp4", "fp4-dq", "int8")
STOCK = """
import sys
import torch
from bitsandbytes.nn import Linear4bit
from transformers import AutoModelForCausalLM

folder, ids, out = sys.argv[1:]
try:
    import cadenza
except ImportError:
    pass
else:
    sys.exit("cadenza is installed in the stock environment")
ids = torch.load(ids)
def logits(fast):
    model = AutoModelForCausalLM.from_pretrained(folder)
    for layer in model.modules():
        if isinstance(layer, Linear4bit) and not fast:
            layer.support_avx512bf16_for_cpu = False
    with torch.no_grad():
        return model(ids).logits
torch.save([logits(True), logits(False)], out)
"""


def main() -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from cadenza.algorithms import apply_post_training_quantization
    from cadenza.models import load, save

    name, text, stock = sys.argv[1:]
    ids = AutoTokenizer.from_pretrained(name)(_text(text), return_tensors="pt").input_ids[:, :TOKENS]
    full = _logits(AutoModelForCausalLM.from_pretrained(name), ids)
    print("| format | stock, dtype of the config | stock, as it is | read back | from full precision |")
    print("|---|---|---|---|---|")
    for form in FORMATS:
        model = AutoModelForCausalLM.from_pretrained(name)
        apply_post_training_quantization(model, form)
        ours = _logits(model, ids)
        with tempfile.TemporaryDirectory() as folder:
            save(model, folder, format="bitsandbytes")
            again = _logits(load(folder), ids)
            fast, exact = _elsewhere(stock, folder, ids)
        found = [float((each - ours).abs().max()) for each in (exact, fast, again, full)]
        print(f"| {form} | {found[0]:.1e} | {found[1]:.1e} | {found[2]:.1e} | {found[3]:.1e} |", flush=True)


def _text(path: str) -> str:
    """The text of the first line of a .jsonl file, or of another file as it is."""
    content = Path(path).read_text(encoding="utf-8")
    return json.loads(content.partition("\n")[0])["text"] if path.endswith(".jsonl") else content


def _logits(model: torch.nn.Module, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(ids).logits


def _elsewhere(stock: str, folder: str, ids: torch.Tensor) -> list[torch.Tensor]:
    """The stock environment's logits: as its library computes on this device, and in the config's dtype."""
    files = [str(Path(folder) / file) for file in ("ids.pt", "logits.pt")]
    torch.save(ids, files[0])
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [stock, "-W", "ignore", "-c", STOCK, folder, *files]
    subprocess.run(command, check=True, env=environment, stderr=subprocess.DEVNULL, cwd=folder)
    return torch.load(files[1])


if __name__ == "__main__":
    main()
