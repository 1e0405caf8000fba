"""The sweep over formats: its settings, its text, its cells on a tiny model, resumed."""

import csv
import json
import math
from contextlib import contextmanager

import pytest
import torch
from families import build
from paths import ROOT

from cadenza.recipe import RecipeError, load_settings
from cadenza.studies import ptq_findings, ptq_metrics, ptq_sweep
from cadenza.studies.checks import StudyError
from cadenza.studies.running import cells


@pytest.fixture
def settings(tmp_path):
    """A tiny model with a tokenizer, in a folder, and a text."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {word: i for i, word in enumerate(["[UNK]", "</s>", *(f"w{i}" for i in range(88))])}
    plain = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=plain, eos_token="</s>").save_pretrained(tmp_path / "tiny")
    build("llama", initializer_range=0.2).save_pretrained(tmp_path / "tiny")
    (tmp_path / "text.txt").write_text(" ".join(f"w{(7 * i * i + i) % 88}" for i in range(400)))
    pairs = [
        "temperatures=[0.5,1.0]",
        "top_k=[5]",
        "max_new_tokens=[6]",
        "windows=2",
        "window=16",
        "prompt=4",
    ]
    pairs += [f"models=[{tmp_path / 'tiny'}]", f"text={tmp_path / 'text.txt'}", f"out={tmp_path / 'out'}"]
    return [*pairs, "dtype=float32"]


def rows_of(folder):
    with (folder / "out" / "ptq_sweep.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_cells_are_resumed_and_reported(settings, tmp_path, capsys):
    pytest.importorskip("bitsandbytes", reason="NOT VERIFIED HERE: needs bitsandbytes")
    assert ptq_sweep.main([*settings, "formats=[none,nf4]"]) == 0
    first = rows_of(tmp_path)
    assert len(first) == 4
    assert {float(row["kl"]) for row in first if row["format"] == "none"} == {0}
    assert all(float(row["kl"]) > 1e-4 for row in first if row["format"] == "nf4")
    assert ptq_sweep.main(settings) == 0
    rows = rows_of(tmp_path)
    assert rows[:4] == first, "cells that were done are kept"
    assert len(rows) == 12
    by_format = {row["format"]: row for row in rows}
    assert float(by_format["int8"]["kl"]) < float(by_format["nf4"]["kl"])
    assert float(by_format["nf4-dq"]["weight_bytes"]) < float(by_format["nf4"]["weight_bytes"])
    assert all(math.isfinite(float(row["generated_nll"])) for row in rows)
    page = (tmp_path / "out" / "ptq_sweep.md").read_text()
    findings = ptq_findings.findings(ptq_findings.as_numbers(rows))
    assert [line.partition(":")[0] for line in findings][:2] == [
        "- nf4 = fp4",
        "- 4-bit models are the more sensitive at temperatures 0.5 to 0.8",
    ]
    assert page.endswith("\n".join(findings) + "\n")
    assert (tmp_path / "out" / "ptq_error_tiny.png").stat().st_size > 1000
    assert ptq_sweep.main([*settings, "seed=3", "formats=[none]"]) == 0
    assert len(rows_of(tmp_path)) == 14, "other settings are other cells"


def test_the_defaults():
    cfg = ptq_sweep.Sweep(models=["m"])
    assert cfg.formats == ["none", "nf4", "nf4-dq", "fp4", "fp4-dq", "int8"]
    assert (cfg.temperatures, cfg.top_k, cfg.max_new_tokens) == (
        [0.1, 0.3, 0.5, 0.8, 1.0, 1.5],
        [50, 200],
        [50],
    )
    assert (cfg.text, cfg.windows, cfg.window, cfg.prompt) == ("python_docs", 16, 512, 32)
    assert (cfg.dtype, cfg.seed, cfg.out) == ("bfloat16", 17, "runs/studies")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"formats": ["nf4", "nf5"]}, "'nf5'; it must be none, nf4"),
        ({"models": []}, "models must name one"),
        ({"prompt": 0}, "prompt is 0; it must be at least 1"),
        ({"prompt": 512}, "prompt is 512; it must be shorter than window, 512"),
        ({"prompt": 511}, None),
        ({"prompt": 1}, None),
    ],
)
def test_settings_are_checked(options, message):
    with pytest.raises(ValueError, match="models must name one"):
        ptq_sweep.Sweep()
    if message is None:
        ptq_sweep.Sweep(**{"models": ["m"], **options})
    else:
        with pytest.raises(ValueError, match=message):
            ptq_sweep.Sweep(**{"models": ["m"], **options})


def loaded(settings, *more):
    return load_settings(ptq_sweep.Sweep, [], [*settings, *more])


def words(windows):
    return [[f"w{i - 2}" for i in row] for row in windows.tolist()]


def test_windows_are_spread_over_the_text(settings, tmp_path):
    """Of 400 tokens, 25 windows of 16: the first and the thirteenth."""
    text = (tmp_path / "text.txt").read_text().split()
    cfg = loaded(settings)
    assert words(ptq_sweep._windows(cfg, cfg.models[0])) == [text[:16], text[192:208]]
    whole = loaded(settings, "windows=25")
    assert words(ptq_sweep._windows(whole, cfg.models[0])) == [text[16 * i : 16 * i + 16] for i in range(25)]
    with pytest.raises(StudyError, match=r"text: .*text.txt holds 25 windows of 16 tokens, not 26"):
        ptq_sweep._windows(loaded(settings, "windows=26"), cfg.models[0])


@pytest.mark.parametrize(("each", "windows"), [(10, 8), (64, 12), (32, 10)])
def test_a_long_text_is_read_as_far_as_four_times_what_is_taken(each, windows, settings, tmp_path):
    """Documents follow one another; what comes after more than 4 * 2 * 16 tokens is left unread."""
    tokens = [f"w{(7 * i * i + i) % 88}" for i in range(640)]
    documents = [" ".join(tokens[i : i + each]) for i in range(0, 640, each)]
    file = tmp_path / "text.jsonl"
    file.write_text("".join(json.dumps({"text": document}) + "\n" for document in documents))
    cfg = loaded(settings, f"text={file}")
    middle = windows // 2 * 16
    expected = [tokens[:16], tokens[middle : middle + 16]]
    assert words(ptq_sweep._windows(cfg, cfg.models[0])) == expected


def perturbed(cfg, name, form):
    """What a quantization may make of the model, by format."""
    model = ptq_sweep._load(cfg, name)
    generator = torch.Generator().manual_seed(len(form))
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    return model


COLUMNS = [
    *("model", "format", "temperature", "top_k", "max_new_tokens", "kl", "topk_agreement", "perplexity"),
    *("top1_agreement", "weight_bytes", "peak_bytes", "generated_nll", "distinct_2", "repeated_4"),
    *("prefill_tokens_per_second", "decode_tokens_per_second", "settings"),
]


def test_each_cell_is_measured_at_its_temperature_and_top_k(settings, tmp_path, monkeypatch):
    monkeypatch.setattr(ptq_sweep, "_quantized", perturbed)
    monkeypatch.setattr(ptq_sweep.gc, "collect", lambda: None)  # takes a second
    more = ["formats=[nf4,none]", "temperatures=[0.5,2.0]", "top_k=[3,9]", "max_new_tokens=[4,3]"]
    cfg = loaded(settings, *more)
    rows = ptq_sweep.run(cfg)
    assert rows == rows_of(tmp_path)
    assert list(rows[0]) == COLUMNS
    keys = [(r["format"], float(r["temperature"]), int(r["top_k"]), int(r["max_new_tokens"])) for r in rows]
    assert keys == [(f, t, k, n) for f in cfg.formats for t in (0.5, 2.0) for k in (3, 9) for n in (4, 3)]
    name = cfg.models[0]
    reference, windows = ptq_sweep._load(cfg, name), ptq_sweep._windows(cfg, name)
    for row, (form, heat, k, new) in zip(rows, keys, strict=True):
        model = reference if form == "none" else perturbed(cfg, name, form)
        text = ptq_metrics.on_text(model, reference, windows, [heat], [k])
        made = ptq_metrics.write(model, windows[:, :4], 17, heat, k, new)
        expected = {
            "kl": text["kl"][heat],
            "topk_agreement": text["overlap"][k],
            "perplexity": math.exp(text["nll"]),
            "top1_agreement": text["top1"],
            "weight_bytes": ptq_metrics.weight_bytes(model),
            **ptq_metrics.of_text(reference, windows[:, :4], made["ids"]),
        }
        assert {column: float(row[column]) for column in expected} == pytest.approx(expected, rel=1e-5)
        assert float(row["peak_bytes"]) >= expected["weight_bytes"] - 1
    assert len({row["kl"] for row in rows}) == 3
    assert {row["settings"] for row in rows} == {cells.fingerprint(cfg, ptq_sweep.SHARED)}


def test_the_peak_comes_on_top_of_the_weights(settings, monkeypatch):
    @contextmanager
    def peak_bytes(device, found):
        seen.append(device.type)
        yield
        found.append(1000)

    seen = []
    monkeypatch.setattr(ptq_metrics, "peak_bytes", peak_bytes)
    cfg = loaded(settings)
    model = ptq_sweep._load(cfg, cfg.models[0])
    _, common = ptq_sweep._on_text(cfg, model, model, torch.ones(2, 16, dtype=torch.long))
    assert common["peak_bytes"] == common["weight_bytes"] + 1000
    assert len(seen) == 1


def test_cells_that_are_done_are_not_done_again(settings, tmp_path, monkeypatch):
    asked = []

    def generated(cfg, model, reference, windows, cell):
        asked.append(cell[1:])
        return {"generated_nll": 1.0, "decode_tokens_per_second": 2.0}

    monkeypatch.setattr(ptq_sweep, "_generated", generated)
    monkeypatch.setattr(ptq_sweep, "_quantized", perturbed)
    monkeypatch.setattr(ptq_sweep.gc, "collect", lambda: None)  # takes a second
    ptq_sweep.run(loaded(settings, "formats=[none]", "temperatures=[0.5]"))
    first = rows_of(tmp_path)
    rows = ptq_sweep.run(loaded(settings, "formats=[nf4,none]"))
    done = [("none", 0.5, 5, 6), ("nf4", 0.5, 5, 6), ("nf4", 1.0, 5, 6), ("none", 1.0, 5, 6)]
    assert asked == done
    assert rows[:1] == first
    assert ptq_sweep.run(loaded(settings, "formats=[none]")) == rows, "all cells of these settings"
    assert asked == done
    other = ptq_sweep.run(loaded(settings, "formats=[none]", "temperatures=[0.5]", "seed=3"))
    assert asked == [*done, ("none", 0.5, 5, 6)], "other settings are other cells"
    assert len(other) == 1
    assert rows_of(tmp_path) == [*rows, *other]


def test_a_model_is_loaded_in_the_dtype_and_quantized(settings, monkeypatch):
    seen = []
    monkeypatch.setattr(ptq_sweep, "apply_post_training_quantization", lambda *given: seen.append(given))
    cfg = loaded(settings)
    cfg.dtype = "bfloat16"
    model = ptq_sweep._load(cfg, cfg.models[0])
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert not model.training
    quantized = ptq_sweep._quantized(cfg, cfg.models[0], "fp4")
    assert seen == [(quantized, "fp4")]


@pytest.mark.parametrize(("cuda", "device"), [(False, "cpu"), (True, "cuda")])
def test_where_models_go_and_what_of_others_is_read(cuda, device, settings, monkeypatch):
    seen = []

    class Model(torch.nn.Linear):
        def to(self, where):
            seen.append(where)
            return self

    def from_pretrained(name, **options):
        seen.append((name, options))
        return Model(1, 1)

    monkeypatch.setattr(ptq_sweep, "safe_weights", lambda: {"use_safetensors": True})
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", from_pretrained)
    monkeypatch.setattr("torch.cuda.is_available", lambda: cuda)
    assert not ptq_sweep._load(loaded(settings), "some").training
    assert seen == [("some", {"dtype": torch.float32, "use_safetensors": True}), device]


def test_bad_settings(settings, capsys):
    assert ptq_sweep.main([*settings, "formats=[nf5]"]) == 2
    assert "'nf5'; it must be none, nf4" in capsys.readouterr().err
    assert ptq_sweep.main([*settings, "temprature=3"]) == 2
    assert "unknown key temprature; did you mean 'temperatures'?" in capsys.readouterr().err
    assert ptq_sweep.main(["--help"]) == 0
    said = capsys.readouterr().out
    assert "python -m cadenza.studies.ptq_sweep yamls/ptq_sweep.yaml" in said
    assert "`windows` pieces of `window` tokens" in said


def test_recipes_are_settings():
    sweep, small, recipe = (
        str(ROOT / "yamls" / name) for name in ("ptq_sweep.yaml", "scale/cpu_ptq.yaml", "qlora.yaml")
    )
    assert load_settings(ptq_sweep.Sweep, [sweep], []).models[0] == "meta-llama/Llama-2-7b-hf"
    assert load_settings(ptq_sweep.Sweep, [sweep, small], []).models == ["HuggingFaceTB/SmolLM2-135M"]
    with pytest.raises(RecipeError, match=r"qlora\.yaml: unknown key"):
        load_settings(ptq_sweep.Sweep, [recipe], [])
