"""`cadenza export FOLDER FILE.onnx` of a text model: what its options do, and what the file computes."""

import numpy as np
import pytest
import torch
from families import build

pytest.importorskip("onnxruntime", reason="the extra `onnx` isn't installed")
if not hasattr(torch.onnx, "ops"):
    pytest.skip(f"torch {torch.__version__} can't put QuantizeLinear into a graph", allow_module_level=True)

from cadenza.algorithms import quantize_after_training
from cadenza.cli.main import main
from cadenza.models import load, save
from cadenza.quantization.deployed import runtime


@pytest.mark.slow
def test_a_text_model(tmp_path, capsys):
    model = build("bert").eval()
    ids = torch.randint(model.config.vocab_size, (6, 12), generator=torch.manual_seed(2))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    quantize_after_training(model, [batch])
    save(model, tmp_path / "few")
    command = ["export", str(tmp_path / "few"), str(tmp_path / "few.onnx")]

    assert main([*command, "--tolerance=0"]) == 2
    assert "and tolerance is 0.0" in capsys.readouterr().err
    assert not (tmp_path / "few.onnx").exists()

    assert main([*command, "--tolerance=0.2", "--sums=int8"]) == 0
    assert "products run in integers" in capsys.readouterr().out
    ids = ids[:5, :7]  # another batch and another length
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    arrays = {name: x.numpy() for name, x in given.items()}
    found = runtime.outputs(tmp_path / "few.onnx", arrays)["logits"]
    with torch.no_grad():
        expected = load(tmp_path / "few")(**given).logits.numpy()
        exact = build("bert").eval()(**given).logits.numpy()
    assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()
    assert np.abs(expected - exact).max() > 0, "it is quantized"
