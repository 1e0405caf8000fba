"""What networks cost, from the command line: its options, its table, and which models it knows."""

import json

import pytest
import torch
from families import build

from cadenza.algorithms import apply_post_training_quantization, apply_quantization_aware_training
from cadenza.studies import compute_cost
from cadenza.studies.compute_cost import layer_costs, totals

KEYS = ["macs", "quadratic", "linear", "memory_bits", "quadratic_ratio", "linear_ratio", "memory_ratio"]


def said(arguments, capsys):
    assert compute_cost.main(arguments) == 0
    return capsys.readouterr().out


def test_the_command_line_gives_one_json_object(capsys):
    bits = ["--weight-bits", "4", "--activation-bits", "8", "--edge-bits", "8"]
    found = json.loads(said(["resnet18", "--image-size", "64", *bits, "--json"], capsys))
    assert list(found) == KEYS
    model, image = compute_cost.build("resnet18", 64, 128, 1.0)
    apply_quantization_aware_training(model, 4, 8, 8)
    assert found == totals(layer_costs(model, image))
    assert found["linear_ratio"] == 0.5
    narrow = json.loads(said(["resnet18", "--image-size", "64", "--width", "0.5", "--json"], capsys))
    assert narrow["macs"] < found["macs"] / 3
    assert narrow["linear_ratio"] == 1


def test_the_command_line_gives_a_table(capsys):
    lines = said(["resnet10", "--image-size", "32", "--weight-bits", "4"], capsys).splitlines()
    assert lines[:2] == ["| resnet10 | cost | of that in 16 bits |", "| --- | --- | --- |"]
    cells = [line.strip("|").split(" | ") for line in lines[2:]]
    model, image = compute_cost.build("resnet10", 32, 128, 1.0)
    found = totals(layer_costs(model, image))
    assert cells[0][1] == f"{found['macs']:,}"
    assert [ratio.strip() for *_, ratio in cells[1:]] == ["0.2500", "1.0000", "0.2500"]


def test_a_table_for_people():
    found = {"macs": 1_234_567, "quadratic": 30_000_000, "linear": 4000, "memory_bits": 55_555}
    found |= {"quadratic_ratio": 0.12345, "linear_ratio": 0.5, "memory_ratio": 0.25}
    assert compute_cost.table("some", found).splitlines() == [
        "| some | cost | of that in 16 bits |",
        "| --- | --- | --- |",
        "| MACs | 1,234,567 | |",
        "| MAC x bits x bits | 30,000,000 | 0.1235 |",
        "| MAC x bits | 4,000 | 0.5000 |",
        "| bits of weights | 55,555 | 0.2500 |",
    ]


def test_options_and_their_defaults(monkeypatch, capsys):
    asked, quantized = [], []

    def built(*given):
        asked.append(given)
        return torch.nn.Sequential(torch.nn.Linear(3, 2)), torch.zeros(1, 3)

    monkeypatch.setattr(compute_cost, "build", built)
    monkeypatch.setattr(
        compute_cost, "apply_quantization_aware_training", lambda model, *bits: quantized.append(bits)
    )
    said(["some"], capsys)
    said(["some", "--weight-bits", "16", "--activation-bits", "16", "--edge-bits", "16"], capsys)
    assert asked == [("some", 224, 128, 1.0)] * 2
    assert quantized == []
    options = ["--width", "0.5", "--image-size", "9", "--tokens", "7"]
    said(["some", *options, "--weight-bits", "3"], capsys)
    said(["some", *options, "--activation-bits", "5", "--edge-bits", "6"], capsys)
    assert asked[2:] == [("some", 9, 7, 0.5)] * 2
    said(["some", "--weight-bits", "16", "--activation-bits", "5"], capsys)
    assert quantized == [(3, None, None), (None, 5, 6), (None, 5, None)]


@pytest.mark.parametrize(("form", "bits"), [("nf4", (4, 16)), ("int8", (8, 8))])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_layers_quantized_after_training_have_their_bits(form, bits, device):
    with torch.device(device):
        layer, x = torch.nn.Linear(64, 32), torch.zeros(1, 64)
        apply_post_training_quantization(layer, form)
        (cost,) = layer_costs(layer, x)
    assert (cost.macs, cost.weights, cost.weight_bits, cost.activation_bits) == (2048, 2048, *bits)


def test_how_it_is_called(capsys):
    with pytest.raises(SystemExit) as done:
        compute_cost.main(["--help"])
    assert done.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith("usage: python -m cadenza.studies.compute_cost ")
    assert "python -m cadenza.studies.compute_cost resnet50 --weight-bits 4 --activation-bits 4" in text
    with pytest.raises(SystemExit):
        compute_cost.main([])


def test_examples_are_of_one():
    network, image = compute_cost.build("resnet18", 32, 128, 0.5)
    assert (image.shape, image.device.type) == ((1, 3, 32, 32), "meta")
    assert network.layer1[0].conv1.out_channels == 32
    other, image = compute_cost.build("mobilenet_v2", 64, 128, 0.5)
    assert (image.shape, next(other.parameters()).device.type) == ((1, 3, 64, 64), "meta")


def test_another_network_of_torchvision(capsys):
    found = json.loads(said(["mobilenet_v2", "--json"], capsys))
    assert found["macs"] == 300774272  # torchvision's table: 0.30 GFLOPS
    assert found["memory_bits"] == 16 * 3469760


@pytest.mark.parametrize("family", ["bert", "llama", "gpt2"])
def test_a_hugging_face_folder(family, tmp_path, capsys):
    model = build(family)
    model.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()  # a config is all that it takes
    found = json.loads(said([str(tmp_path), "--tokens", "8", "--json"], capsys))
    assert found == totals(layer_costs(model, torch.ones(1, 8, dtype=torch.long)))
    assert json.loads(said([str(tmp_path), "--tokens", "16", "--json"], capsys))["macs"] == 2 * found["macs"]


def test_a_folder_whose_config_names_no_class_has_no_head(tmp_path, capsys):
    build("llama").config.save_pretrained(tmp_path)
    found = json.loads(said([str(tmp_path), "--tokens", "8", "--json"], capsys))
    whole = totals(layer_costs(build("llama"), torch.ones(1, 8, dtype=torch.long)))
    assert found["macs"] == whole["macs"] - 8 * 32 * 90


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["resent50"],
            "resent50 is neither a model of torchvision, such as resnet50, nor a folder with a config.json",
        ),
        (
            ["resnet10", "--weight-bits", "4", "--edge-bits", "16"],
            "quantization_aware_training edge_bits is 16; it must be at most 8",
        ),
        (["resnet10", "--edge-bits", "8"], "--edge-bits needs --weight-bits or --activation-bits below 16"),
        (
            ["resnet10", "--width", "0.001"],
            "model.width is 0.001; it must be at least 1/64, which is one filter",
        ),
    ],
)
def test_what_cannot_be_counted_is_said(arguments, message, capsys):
    assert compute_cost.main(arguments) == 2
    assert capsys.readouterr().err == f"error: {message}\n"


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--weight-bits=9", "--weight-bits is 9; it must be at most 8, or 16"),
        ("--activation-bits=0", "--activation-bits is 0; it must be at least 2, or 16"),
        ("--width=nan", "--width is nan; it must lie in (0, 64]"),
        ("--width=x", "--width is 'x'; it must be a number"),
        ("--image-size=0", "--image-size is 0; it must be at least 1"),
        ("--tokens=-1", "--tokens is -1; it must be at least 1"),
        ("--tokens=1.5", "--tokens is '1.5'; it must be an integer"),
    ],
)
def test_numbers_are_checked_first(option, said, capsys):
    with pytest.raises(SystemExit) as done:
        compute_cost.main(["resnet10", option])
    assert done.value.code == 2
    assert capsys.readouterr().err == f"error: {said}\n"
