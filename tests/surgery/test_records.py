"""The record of surgeries: in the ledger, in a config, and beside it."""

import json
from importlib.metadata import version

import pytest
from families import build
from torch import nn

from cadenza.algorithms import apply_alibi, apply_glu, apply_unpadding, apply_vocab_padding
from cadenza.models import composer_model
from cadenza.surgery import SurgeryError, history, ledger
from cadenza.surgery.checkpoint import parse
from cadenza.surgery.saving import SavesSurgeries, outermost, with_record

CLASS = "transformers.models.bert.modeling_bert:BertForMaskedLM"
AUTO = ("MaskedLM", "CausalLM", "MultipleChoice", "QuestionAnswering")
AUTO += ("SequenceClassification", "TokenClassification")


def test_a_surgery_as_text():
    assert parse("GLU(variant='geglu', intermediate_size=None)") == (
        "GLU",
        {"variant": "geglu", "intermediate_size": None},
    )
    assert parse("ALiBi()") == ("ALiBi", {})
    for text in ("GLU(variant=open('a'))", "GLU", "not a call (", "a = 1"):
        with pytest.raises(ValueError, match="is not a surgery with plain options"):
            parse(text)


def test_the_ledger_holds_what_is_in_place():
    model = build("bert")
    layer = model.bert.encoder.layer[0]
    alibi, glu = apply_alibi(model), apply_glu(model)
    apply_unpadding(model)
    vocabulary = apply_vocab_padding(model, 32)
    assert [entry.name for entry in history(model)] == ["GLU", "VocabPadding", "ALiBi", "Unpadding"]
    assert [entry.keeps_outputs for entry in history(model)] == [False, False, False, True]
    assert list(ledger(layer.intermediate)) == ["GLU"]
    glu.undo()
    assert "surgeries" not in vars(layer.intermediate)
    alibi.undo()
    assert [str(entry) for entry in history(model)] == ["VocabPadding(multiple=32)", "Unpadding()"]
    vocabulary.undo()


def test_two_surgeries_on_one_module_are_struck_out_one_by_one():
    model = build("bert")
    alibi, unpadding = apply_alibi(model), apply_unpadding(model)
    attention = model.bert.encoder.layer[0].attention.self
    both = set(ledger(attention))
    alibi.undo()
    assert set(ledger(attention)) == both - {"ALiBi"}
    unpadding.undo()
    assert ledger(attention) == {}


def test_what_stock_code_computes_equally_stays_stock():
    model = build("bert")
    apply_unpadding(model)
    record = {
        "model_type": "bert",
        "surgeries": {"Unpadding": {}},
        "version": version("cadenza"),
        "class": CLASS,
    }
    fields = {"model_type": "bert", "vocab_size": 90}
    assert with_record(fields, model) == {**fields, "cadenza": record}
    assert fields == {"model_type": "bert", "vocab_size": 90}


def test_what_it_does_not_gets_a_type_and_classes_of_its_own():
    model = build("bert")
    apply_unpadding(model)
    apply_glu(model, "swiglu", 24)
    found = with_record({"model_type": "bert"}, model)
    assert found["cadenza"] == {
        "class": CLASS,
        "model_type": "bert",
        "surgeries": {"GLU": {"variant": "swiglu", "intermediate_size": 24}, "Unpadding": {}},
        "version": version("cadenza"),
    }
    assert found["model_type"] == "cadenza"
    assert found["auto_map"] == {
        "AutoConfig": "cadenza_remote.CadenzaConfig",
        "AutoModel": "cadenza_remote.CadenzaModel",
        **{f"AutoModelFor{name}": f"cadenza_remote.CadenzaModelFor{name}" for name in AUTO},
    }


def test_a_folder_is_written_by_the_main_process_alone(tmp_path):
    model = build("bert")
    apply_glu(model)
    model.save_pretrained(tmp_path / "other", False)
    assert not list((tmp_path / "other").glob("*config*"))
    model.save_pretrained(tmp_path / "main")
    text = (tmp_path / "main/config.json").read_text()
    fields = json.loads(text)
    assert text == json.dumps(fields, indent=2) + "\n"
    assert fields["cadenza"]["surgeries"].keys() == {"GLU"}
    code = (tmp_path / "main/cadenza_remote.py").read_text()
    assert f"the package cadenza, version {version('cadenza')} or later" in code
    compile(code, "cadenza_remote.py", "exec")
    with pytest.raises(SurgeryError, match="push_to_hub=True uploads before surgeries are recorded"):
        model.save_pretrained(tmp_path / "pushed", push_to_hub=True)
    assert not (tmp_path / "pushed").exists()
    model.save_pretrained(tmp_path / "kept", push_to_hub=False)


def test_no_stub_where_none_is_needed(tmp_path):
    model = build("bert")
    apply_unpadding(model)
    model.save_pretrained(tmp_path)
    assert not (tmp_path / "cadenza_remote.py").exists()
    assert json.loads((tmp_path / "config.json").read_text())["cadenza"]["model_type"] == "bert"


def test_the_outermost_models_save_and_stop_when_nothing_is_left():
    first, second = build("bert", num_hidden_layers=1), build("bert", num_hidden_layers=1)
    both = nn.ModuleDict({"a": composer_model(first), "b": nn.Sequential(second), "c": nn.Linear(1, 1)})
    assert outermost(both) == [first, second]
    assert outermost(nn.Linear(1, 1)) == []
    glu, vocabulary = apply_glu(both), apply_vocab_padding(first)
    assert isinstance(first, SavesSurgeries)
    assert isinstance(second, SavesSurgeries)
    assert not isinstance(first.bert, SavesSurgeries)
    glu.undo()
    assert isinstance(first, SavesSurgeries), "its vocabulary is still padded"
    assert not isinstance(second, SavesSurgeries)
    vocabulary.undo()
    assert not isinstance(first, SavesSurgeries)
