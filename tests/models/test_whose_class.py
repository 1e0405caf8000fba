"""Which class a folder is loaded as, and which weights it must hold."""

import json
import sys

import peft
import pytest
import torch
import transformers
from families import batch, build
from safetensors.torch import load_file, save_file
from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification, pipeline
from words import tokenizer

from cadenza.algorithms import apply_alibi, apply_glu, apply_unpadding
from cadenza.models import ModelError, export, load, save
from cadenza.surgery import SurgeryError


class OwnBert(transformers.BertForMaskedLM):
    """A user's class under a name of its own."""

    def forward(self, *args, **kwargs):
        output = super().forward(*args, **kwargs)
        output.logits = 3 * output.logits + 1
        return output


class BertForMaskedLM(OwnBert):
    """A user's class under the name of transformers' class."""


def saved(cls, folder, apply=apply_alibi):
    model = cls(build("bert").config).eval()
    apply(model)
    save(model, folder)
    return model


def same_logits(one, other):
    ids = batch("bert")["input_ids"]
    return torch.equal(one(input_ids=ids).logits, other.eval()(input_ids=ids).logits)


@pytest.mark.parametrize("cls", [OwnBert, BertForMaskedLM])
@pytest.mark.parametrize("apply", [apply_alibi, apply_unpadding])
def test_a_users_class_is_loaded_as_itself(cls, apply, tmp_path):
    model = saved(cls, tmp_path, apply)
    loaded = load(tmp_path)
    assert type(loaded) is type(model)
    assert same_logits(model, loaded)
    card = (tmp_path / "README.md").read_text()
    assert f"import {__name__}  # it defines the class {cls.__name__}" in card


@pytest.mark.parametrize("cls", [OwnBert, BertForMaskedLM])
def test_a_class_that_is_not_imported_is_said(cls, tmp_path, monkeypatch):
    saved(cls, tmp_path)
    monkeypatch.delitem(sys.modules, __name__)
    with pytest.raises(
        ModelError, match=f"{cls.__name__}' isn't found in the module {__name__}; import that"
    ):
        load(tmp_path)


def test_a_class_inside_of_a_function_is_said(tmp_path):
    class Local(OwnBert):
        pass

    saved(Local, tmp_path)
    with pytest.raises(
        ModelError, match=r"isn't found in the module .*; import that first, with the class at its top"
    ):
        load(tmp_path)


@pytest.mark.parametrize("auto", [AutoModelForMaskedLM, AutoModelForSequenceClassification])
def test_transformers_own_code_does_not_stand_for_a_users_class(auto, tmp_path):
    saved(BertForMaskedLM, tmp_path)
    for read in (lambda: load(tmp_path, auto), lambda: auto.from_pretrained(tmp_path)):
        with pytest.raises(ModelError, match=f"BertForMaskedLM, which {auto.__name__} doesn't make"):
            read()


def test_a_folder_without_the_module_of_its_class_is_of_transformers(tmp_path):
    """As version 0.1 wrote them."""
    model = saved(transformers.BertForMaskedLM, tmp_path)
    file = tmp_path / "config.json"
    fields = json.loads(file.read_text())
    assert fields["cadenza"].pop("class") == "transformers.models.bert.modeling_bert:BertForMaskedLM"
    file.write_text(json.dumps(fields))
    assert same_logits(model, load(tmp_path))
    file.write_text(json.dumps({**fields, "architectures": ["NoSuchModel"]}))
    with pytest.raises(ModelError, match="'NoSuchModel' is not a model of transformers"):
        load(tmp_path)


def test_a_checkpoint_of_a_users_class_is_exported_as_itself(tmp_path):
    from trainers import short_trainer

    from cadenza.algorithms import ALiBi

    trained = short_trainer(BertForMaskedLM(build("bert").config), [ALiBi()], "bert")
    trained.save_checkpoint(str(tmp_path / "checkpoint.pt"))
    loaded = load(export(tmp_path / "checkpoint.pt", tmp_path / "folder", trusted=True))
    assert type(loaded).__mro__[-len(BertForMaskedLM.__mro__)] is BertForMaskedLM


def changed(folder, change):
    weights = folder / "model.safetensors"
    tensors = load_file(weights)
    change(tensors)
    save_file(tensors, weights, metadata={"format": "pt"})


def test_missing_weights_are_an_error(tmp_path):
    saved(transformers.BertForMaskedLM, tmp_path, apply_glu)
    name = "bert.encoder.layer.1.intermediate.dense.weight"
    changed(tmp_path, lambda tensors: tensors.pop(name))
    for read in (load, AutoModelForMaskedLM.from_pretrained):
        with pytest.raises(ModelError, match=f"load: weights are missing: {name}"):
            read(tmp_path)
    with pytest.raises(ModelError, match=f"load: weights are missing: {name}"):
        load(tmp_path, AutoModelForSequenceClassification)


def test_weights_that_the_model_has_not_are_an_error(tmp_path):
    saved(transformers.BertForMaskedLM, tmp_path, apply_glu)
    changed(tmp_path, lambda tensors: tensors.update({f"lora_{n}": torch.ones(1) for n in range(6)}))
    with pytest.raises(ModelError, match=r"not of this model: lora_0, lora_1, lora_2, lora_3 and 2 more"):
        load(tmp_path)


@pytest.mark.parametrize("apply", [apply_alibi, None])
def test_adapters_are_merged_before_a_model_is_saved(apply, tmp_path):
    model = build("llama")
    if apply:
        apply(model)
    config = peft.LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    adapted = peft.get_peft_model(model, config)
    with pytest.raises(SurgeryError, match=r"holds adapters of peft; merge them \(merge_and_unload\)"):
        save(adapted, tmp_path / "adapted")
    assert not (tmp_path / "adapted").exists()
    merged = adapted.merge_and_unload().eval()
    if apply:
        with torch.no_grad():
            expected = merged(batch("llama")["input_ids"]).logits
            save(merged, tmp_path / "merged")
            assert torch.equal(load(tmp_path / "merged")(batch("llama")["input_ids"]).logits, expected)


def test_an_adapted_model_itself_is_not_saved_either(tmp_path):
    model = build("llama")
    apply_alibi(model)
    peft.get_peft_model(model, peft.LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM"))
    with pytest.raises(SurgeryError, match="holds adapters of peft"):
        model.save_pretrained(tmp_path)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_the_dtype_may_be_that_of_the_folder(dtype, tmp_path):
    model = build("bert").to(dtype)
    apply_glu(model)
    save(model, tmp_path)
    for read in (load, AutoModelForMaskedLM.from_pretrained):
        assert {p.dtype for p in read(tmp_path, dtype="auto").parameters()} == {dtype}
        assert read(tmp_path, dtype="float64").dtype == torch.float64


def test_a_pipeline_of_transformers(tmp_path):
    words = tokenizer()
    words.mask_token = "w3"
    model = build("bert", vocab_size=len(words))
    apply_glu(model)
    save(model, tmp_path, words)
    text = "w3"
    expected = model(**words(text, return_tensors="pt")).logits[0, 0].softmax(-1).max().item()
    found = pipeline("fill-mask", model=str(tmp_path), device="cpu")(text)
    assert found[0]["score"] == pytest.approx(expected, rel=1e-5)
