"""Folders by every way in: transformers' auto classes, their options, and what is written beside."""

import json

import pytest
import torch
import transformers
from composer.algorithms.warnings import NoEffectWarning
from families import batch, build
from transformers import AutoModelForCausalLM, AutoModelForQuestionAnswering, BertConfig
from words import tokenizer

from cadenza.algorithms import (
    MaskingSchedule,
    apply_alibi,
    apply_vocab_padding,
)
from cadenza.models import ModelError, auto, load, save, saved
from cadenza.surgery import NoEffect
from cadenza.surgery.saving import AUTO_CLASSES


@pytest.fixture(scope="module")
def model():
    made = build("bert")
    apply_alibi(made)
    return made


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    return save(model, tmp_path_factory.mktemp("saved") / "some")


def hidden(model):
    inputs = batch("bert", padding=None)
    base = getattr(model, "bert", model)
    with torch.no_grad():
        return base(inputs["input_ids"]).last_hidden_state


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", AUTO_CLASSES)
def test_every_auto_class(name, model, folder):
    """Each gives the class of transformers, around the encoder after surgery."""
    cls = getattr(transformers, name)
    loaded = cls.from_pretrained(folder)
    assert type(loaded).__name__ == cls._model_mapping[BertConfig].__name__
    assert torch.equal(hidden(loaded), hidden(model))
    assert type(load(folder, cls)).__name__ == type(loaded).__name__


@pytest.mark.filterwarnings("ignore")
def test_answers_to_questions_are_learned(folder):
    loaded = load(folder, AutoModelForQuestionAnswering).train()
    inputs = {key: value for key, value in batch("bert").items() if key != "labels"}
    at = torch.tensor([1, 0, 2])
    out = loaded(**inputs, start_positions=at, end_positions=at + 1)
    assert out.start_logits.shape == out.end_logits.shape == inputs["input_ids"].shape
    out.loss.backward()
    assert all(p.grad is not None for p in loaded.parameters() if p.requires_grad)


def test_the_loaders_are_where_remote_code_looks():
    for name in AUTO_CLASSES:
        loader = getattr(auto, name.replace("Auto", "Cadenza"))
        assert (loader.__module__, loader.auto) == ("cadenza.models.auto", getattr(transformers, name))
        assert loader.config_class is auto.CadenzaConfig
        assert loader.register_for_auto_class(name) is None
    auto._register()  # as when two copies of the remote code come


def test_options_of_auto_classes_that_are_not_of_models(folder, monkeypatch):
    seen = []
    monkeypatch.setattr(auto, "load_with", lambda *given, **options: seen.append((given, options)) or "it")
    config = auto.CadenzaConfig.from_pretrained(folder)
    loader = auto.CadenzaModelForMaskedLM
    unused = {"trust_remote_code": True, "adapter_kwargs": {}, "_from_auto": True, "code_revision": "main"}
    assert loader.from_pretrained(folder, config=config, dtype="bfloat16", **unused) == "it"
    ((fields, where, cls), options) = seen[0]
    assert (where, cls, options) == (str(folder), loader.auto, {"dtype": "bfloat16"})
    assert fields["cadenza"]["surgeries"] == {"ALiBi": {}}


def test_a_name_of_the_hub_is_downloaded(monkeypatch, tmp_path):
    seen = []

    def snapshot_download(name, **options):
        seen.append((name, options))
        return "the snapshot"

    monkeypatch.setattr(auto, "snapshot_download", snapshot_download)
    hub = {"revision": "a", "cache_dir": "b", "force_download": True, "token": "c"}
    unused = {"proxies": {}, "subfolder": "", "code_revision": "d"}
    options = {**hub, **unused, "local_files_only": True, "dtype": "float16"}
    assert auto._local("some/name", options) == "the snapshot"
    assert options == {"dtype": "float16"}
    assert seen == [("some/name", {**hub, "local_files_only": True})]
    assert auto._local("some/name", {}) == "the snapshot"
    assert seen[1] == ("some/name", {})
    options = {**hub, **unused, "local_files_only": True, "dtype": "float16"}
    assert auto._local(tmp_path, options) == str(tmp_path)
    assert options == {"dtype": "float16"}
    assert len(seen) == 2, "a folder is no name"


def test_a_class_that_transformers_lacks_is_said(tmp_path):
    model = build("albert")
    apply_alibi(model)
    save(model, tmp_path)
    with pytest.raises(ModelError, match="load: transformers has no AutoModelForCausalLM for albert"):
        load(tmp_path, AutoModelForCausalLM)


def test_options_of_a_surgery_that_it_has_not(folder, tmp_path):
    fields = json.loads((folder / "config.json").read_text())
    fields["cadenza"]["surgeries"] = {"ALiBi": {"slope": 3}}
    (tmp_path / "config.json").write_text(json.dumps(fields))
    with pytest.raises(ModelError, match=r"the model was changed by ALiBi with \{'slope': 3\}: .*slope"):
        load(tmp_path)


def test_the_loaded_config_is_the_stock_one(folder, tmp_path):
    fields = json.loads((folder / "config.json").read_text())
    assert (fields["model_type"], "auto_map" in fields, "cadenza" in fields) == ("cadenza", True, True)
    config = load(folder).config
    assert type(config) is BertConfig
    assert config.model_type == "bert"
    assert not {"auto_map", "cadenza"} & vars(config).keys()
    config.save_pretrained(tmp_path)
    assert not {"auto_map", "cadenza"} & json.loads((tmp_path / "config.json").read_text()).keys()


def test_layers_that_another_head_brings_along():
    """Surgeries on layers leave these, which have no weights yet."""
    config = build("bert").config
    head, classes = transformers.BertForMaskedLM, transformers.BertForSequenceClassification
    assert saved._new_layers(classes, head, config) == ["bert.pooler.dense", "classifier"]
    assert saved._new_layers(transformers.BertModel, head, config) == ["pooler.dense"]
    assert saved._new_layers(head, head, config) == []
    assert "cls.predictions.transform.dense" in saved._new_layers(head, classes, config)


def test_surgeries_alone_are_recorded():
    assert MaskingSchedule.__name__ not in saved.SURGERIES
    assert {"ALiBi", "GLU", "VocabPadding", "PostTrainingQuantization"} <= saved.SURGERIES.keys()


def test_what_is_written_beside_the_weights(model, tmp_path):
    words = tokenizer()
    path = save(model, str(tmp_path / "a" / "name"), words, {"batches": 3, "tokens": "4,000"})
    assert path == tmp_path / "a" / "name"
    again = transformers.AutoTokenizer.from_pretrained(path)
    assert again.get_vocab() == words.get_vocab()
    assert "- batches: 3\n- tokens: 4,000\n\n## Use" in (path / "README.md").read_text(encoding="utf-8")
    plain = save(model, tmp_path / "plain")
    assert not list(plain.glob("tokenizer*"))
    holder = torch.nn.Sequential(torch.nn.Linear(1, 1), model)
    assert (save(holder, tmp_path / "held") / "model.safetensors").is_file()
    with pytest.raises(ModelError, match="save: Sequential holds 2 Hugging Face models, not one"):
        save(torch.nn.Sequential(model, build("bert")), tmp_path / "two")


@pytest.mark.parametrize("tied", [True, False])
def test_ties_are_as_they_were(tied, tmp_path):
    """Also where the vocabulary was padded, in a head with or without weights of its own."""
    model = build("bert", tie_word_embeddings=tied)
    apply_vocab_padding(model, 64)
    save(model, tmp_path)
    loaded = load(tmp_path)
    words, head = loaded.get_input_embeddings().weight, loaded.get_output_embeddings().weight
    assert (words is head) == tied
    assert words.shape[0] == head.shape[0] == 128
    assert all(torch.equal(t, loaded.state_dict()[name]) for name, t in model.state_dict().items())


class Nothing:
    """A surgery that finds nothing to change."""

    def __init__(self, keeps_outputs):
        self.keeps_outputs = keeps_outputs

    def operate(self, model):
        raise NoEffect("nothing there")


def test_only_what_changes_no_output_may_be_missing_under_another_head():
    with pytest.warns(NoEffectWarning, match="nothing there"):
        saved._operate(Nothing(keeps_outputs=True), None, soft=True)
    for keeps_outputs, soft in ((False, True), (True, False), (False, False)):
        with pytest.raises(NoEffect):
            saved._operate(Nothing(keeps_outputs), None, soft)


@pytest.mark.filterwarnings("ignore")
def test_the_same_head_by_an_auto_class_misses_nothing(folder, monkeypatch):
    """Then all surgeries must find what they found."""
    seen = []
    usual = saved._rebuilt
    monkeypatch.setattr(saved, "_rebuilt", lambda *given, soft: seen.append(soft) or usual(*given, soft=soft))
    load(folder)
    load(folder, transformers.AutoModelForMaskedLM)
    load(folder, AutoModelForQuestionAnswering)
    assert seen == [False, False, True]
