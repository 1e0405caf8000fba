"""Folders: what is saved loads as the same model, with cadenza, and never as another without."""

import json
import subprocess
import sys

import pytest
import torch
from cases import CASES, PAIRS, TOGETHER, claimed
from composer.algorithms.warnings import NoEffectWarning
from effects import logits
from families import batch, build
from paths import ROOT
from patience import PATIENCE
from saved import ledgers, operated, same
from transformers import AutoModel, AutoModelForMaskedLM, AutoModelForSequenceClassification

from cadenza.algorithms import (
    apply_alibi,
    apply_glu,
    apply_post_training_quantization,
    apply_sparse_prediction,
    apply_unpadding,
    apply_vocab_padding,
)
from cadenza.models import ModelError, composer_model, load, save
from cadenza.quantization.stored.quantized_linear import Quantized
from cadenza.surgery import SurgeryError, history

pytestmark = pytest.mark.slow

SEVERAL = [chosen for chosen in TOGETHER if chosen[0] in ("bert", "roberta", "llama", "gpt2")]


@pytest.mark.parametrize(("name", "family"), PAIRS)
def test_each_technique_is_loaded_as_it_was(name, family, tmp_path):
    model = operated(family, [name])
    model.save_pretrained(tmp_path)  # what any trainer calls
    loaded = load(tmp_path)
    same(model, loaded)
    context = CASES[name].context
    assert torch.equal(logits(model, family, context), logits(loaded, family, context))


@pytest.mark.parametrize(("family", "names"), SEVERAL)
def test_all_together_by_every_way_in(family, names, tmp_path):
    model = operated(family, names)
    save(model, tmp_path)
    expected = logits(model, family)
    auto = AutoModelForMaskedLM if "ForMaskedLM" in type(model).__name__ else None
    again = load(tmp_path, attn_implementation="sdpa")
    same(model, again)
    assert torch.equal(expected, logits(again, family))
    if auto is not None:
        same(model, auto.from_pretrained(tmp_path))
    save(again, tmp_path / "second")
    same(model, load(tmp_path / "second"))
    first, second = ((f / "config.json").read_text() for f in (tmp_path, tmp_path / "second"))
    assert json.loads(first) == json.loads(second)


@pytest.mark.parametrize(("family", "names"), [each for each in SEVERAL if each[0] in ("bert", "llama")])
def test_stock_code_loads_what_it_computes_equally(family, names, tmp_path):
    names = [name for name in names if CASES[name].cls.keeps_outputs]  # held by the tests of claims
    model = operated(family, names)
    save(model, tmp_path)
    assert not (tmp_path / "cadenza_remote.py").exists()
    stock = type(build(family)).from_pretrained(tmp_path)
    assert not ledgers(stock)
    assert (logits(stock, family) - logits(model, family)).abs().max() < 1e-5
    same(model, load(tmp_path))


ALONE = """
import sys
sys.modules["cadenza"] = sys.modules["cadenza.models"] = None  # as where it isn't installed
import transformers
auto = getattr(transformers, sys.argv[1])
try:
    auto.from_pretrained(sys.argv[2], **eval(sys.argv[3]))
except Exception as error:
    print(type(error).__name__, " ".join(str(error).split()))
else:
    print("loaded")
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "said"),
    [({}, "trust_remote_code=True"), ({"trust_remote_code": True}, "needs the package cadenza, version")],
)
@pytest.mark.parametrize(
    ("auto", "family"), [("AutoModelForMaskedLM", "bert"), ("AutoModelForCausalLM", "llama")]
)
def test_without_cadenza_nothing_loads_silently(options, said, auto, family, tmp_path, monkeypatch):
    save(operated(family, ["alibi"]), tmp_path)  # in Llama it leaves the keys as they were
    command = [sys.executable, "-W", "ignore", "-c", ALONE, auto, str(tmp_path), repr(options)]
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=PATIENCE)
    assert "loaded" not in done.stdout
    assert said in done.stdout


@pytest.mark.slow
def test_remote_code_loads_where_cadenza_is(tmp_path, monkeypatch):
    model = operated("llama", ["alibi"])
    save(model, tmp_path)
    torch.save(logits(model, "llama"), tmp_path / "logits.pt")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    code = (
        "import sys, torch; from transformers import AutoModelForCausalLM\n"
        "assert not any(name.startswith('cadenza') for name in sys.modules)\n"
        "model = AutoModelForCausalLM.from_pretrained(sys.argv[1], trust_remote_code=True)\n"
        "sys.path.append(sys.argv[2])\n"
        "from effects import logits\n"
        "assert torch.equal(logits(model, 'llama'), torch.load(sys.argv[1] + '/logits.pt'))\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", code, str(tmp_path), str(ROOT / "tests/support")]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_fine_tuning_head_gets_the_whole_encoder(tmp_path):
    model = operated("bert", claimed("bert"))
    save(composer_model(model), tmp_path)
    with pytest.warns(NoEffectWarning, match="SparsePrediction"):
        loaded, info = AutoModelForSequenceClassification.from_pretrained(
            tmp_path, num_labels=3, output_loading_info=True
        )
    assert loaded.classifier.out_features == loaded.config.num_labels == 3
    assert {key.split(".")[0] for key in info["unexpected_keys"]} == {"cls"}
    new = {"classifier.weight", "classifier.bias", "bert.pooler.dense.weight"}  # no_bias takes the pooler's
    assert set(info["missing_keys"]) == new
    inputs = {key: value for key, value in batch("bert").items() if key != "labels"}
    hidden = model.bert(**inputs).last_hidden_state
    assert torch.equal(loaded.bert(**inputs).last_hidden_state, hidden)
    assert loaded(**inputs).logits.shape == (3, 3)
    loaded(**inputs, labels=torch.tensor([0, 1, 2])).loss.backward()
    assert all(p.grad is not None for p in loaded.parameters())
    save(loaded, tmp_path / "tuned")
    assert torch.equal(load(tmp_path / "tuned")(**inputs).logits, loaded(**inputs).logits)


@pytest.mark.parametrize(
    ("options", "left"),
    [
        ({"except_": ["*.layer.0.*"]}, {"0"}),
        ({"only": ["*.layer.1.*", "cls.*.transform.dense"]}, {"0"}),
        ({}, set()),
    ],
)
def test_the_users_globs_hold_under_another_head(options, left, tmp_path):
    model = build("bert")
    apply_post_training_quantization(model, "int8", **options)
    save(model, tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path, num_labels=3)
    linear = {path: m for path, m in loaded.named_modules() if isinstance(m, torch.nn.Linear)}
    stock = {path for path, module in linear.items() if not isinstance(module, Quantized)}
    assert {path for path in stock if ".layer." not in path} == {"classifier", "bert.pooler.dense"}
    assert {n for n in "01" if any(f".layer.{n}." in path for path in stock)} == left
    inputs = {key: value for key, value in batch("bert").items() if key != "labels"}
    hidden = model.bert(**inputs).last_hidden_state
    assert torch.equal(loaded.bert(**inputs).last_hidden_state, hidden)


def test_the_bare_encoder(tmp_path):
    model = operated("bert", ["alibi", "glu", "vocab_padding"])
    save(model, tmp_path)
    encoder = AutoModel.from_pretrained(tmp_path)
    inputs = {key: value for key, value in batch("bert").items() if key != "labels"}
    expected = model.bert(**inputs).last_hidden_state
    assert torch.equal(encoder(**inputs).last_hidden_state, expected)


def test_dtype_and_options_reach_from_pretrained(tmp_path):
    save(operated("bert", ["alibi", "glu"]), tmp_path)
    low = load(tmp_path, dtype=torch.bfloat16)
    assert {p.dtype for p in low.parameters()} == {torch.bfloat16}
    assert load(tmp_path, hidden_dropout_prob=0.5).config.hidden_dropout_prob == 0.5


def test_undo_gives_the_stock_saving_back(tmp_path):
    model = build("bert")
    reports = [apply_alibi(model), apply_vocab_padding(model)]
    for report in reports:
        report.undo()
    model.save_pretrained(tmp_path)
    assert "cadenza" not in (tmp_path / "config.json").read_text()
    assert history(model) == []


def test_the_card_says_what_was_done(tmp_path):
    model = build("bert")
    apply_glu(model, "swiglu")
    apply_sparse_prediction(model)
    save(model, tmp_path / "name", facts={"batches": 3})
    card = (tmp_path / "name" / "README.md").read_text()
    assert "pipeline_tag: fill-mask" in card
    assert '| GLU | variant: "swiglu", intermediate_size: null | no |' in card
    assert "| SparsePrediction |  | yes |" in card
    assert 'AutoModelForMaskedLM.from_pretrained("name")' in card
    assert "- batches: 3" in card


def edited(folder, **record):
    save(operated("bert", ["glu"]), folder)
    file = folder / "config.json"
    fields = json.loads(file.read_text())
    fields["cadenza"].update(record)
    file.write_text(json.dumps(fields))


def test_what_cannot_be_loaded_is_said(tmp_path):
    with pytest.raises(ModelError, match=r"there is no .*nowhere/config.json; name a folder"):
        load(tmp_path / "nowhere")
    build("bert").save_pretrained(tmp_path / "stock")
    with pytest.raises(ModelError, match="records no surgery; load this stock model with transformers"):
        load(tmp_path / "stock")
    edited(tmp_path / "unknown", surgeries={"Telepathy": {}})
    with pytest.raises(ModelError, match="was changed by Telepathy, which this version doesn't have"):
        load(tmp_path / "unknown")
    edited(tmp_path / "options", surgeries={"GLU": {"variant": "maxout"}})
    with pytest.raises(ModelError, match="'maxout'; it must be geglu, swiglu or reglu"):
        load(tmp_path / "options")
    (tmp_path / "options" / "config.json").write_text("{")
    with pytest.raises(ModelError, match="not valid JSON"):
        load(tmp_path / "options")
    with pytest.raises(ModelError, match="Linear holds 0 Hugging Face models"):
        save(torch.nn.Linear(2, 2), tmp_path)
    with pytest.raises(SurgeryError, match=r"call model.push_to_hub"):
        operated("bert", ["glu"]).save_pretrained(tmp_path, push_to_hub=True)


def test_a_damaged_weight_file_is_said(tmp_path):
    save(operated("bert", ["glu"]), tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelError, match=r"weights in .* can't be read"):
        load(tmp_path)


def test_a_model_that_proved_a_technique_is_loaded_without_another_proof(tmp_path):
    """Its weights aren't there yet when the technique is applied again."""
    from text_families import build as family

    model = family("olmo2")
    apply_unpadding(model)
    save(model, tmp_path / "saved")
    ids = torch.randint(5, 85, (2, 9), generator=torch.Generator().manual_seed(0))
    loaded = load(tmp_path / "saved").eval()
    assert torch.equal(loaded(ids).logits, model(ids).logits)
    assert loaded.model.batch_plan.layout == "unpadded"
