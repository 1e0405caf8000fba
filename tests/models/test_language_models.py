"""Language models of recipes: which class, which fields and special ids, which metrics, and what is said."""

import sys
from types import SimpleNamespace

import pytest
import torch
from families import batch, build
from tokenizers import models
from transformers import AutoModelForCausalLM, BertForMaskedLM, LlamaForCausalLM
from words import tokenizer

from cadenza.models import ModelError, causal_lm, composer_model, errors, has_adapters, masked_lm
from cadenza.models.errors import nearest_field
from cadenza.models.lora import lora_config

TINY = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}


def test_what_is_built_without_a_word():
    masked, causal = masked_lm(config=TINY).model, causal_lm(config=TINY).model
    assert type(masked) is BertForMaskedLM
    assert type(causal) is LlamaForCausalLM
    assert (masked.config.vocab_size, causal.config.vocab_size) == (30_522, 32_000)
    for model in (masked, causal):
        assert model.config._attn_implementation == "sdpa"
        assert {name: getattr(model.config, name) for name in TINY} == TINY


@pytest.mark.parametrize("make", [masked_lm, causal_lm])
def test_the_kind_of_attention_arrives(make, tmp_path):
    family = "bert" if make is masked_lm else "llama"
    assert make(config=TINY, attention="eager").model.config._attn_implementation == "eager"
    build(family).save_pretrained(tmp_path)
    for kind in ("eager", "sdpa"):
        model = make(pretrained=str(tmp_path), attention=kind).model
        assert model.config._attn_implementation == kind
    assert make(pretrained=str(tmp_path)).model.config._attn_implementation == "sdpa"


def test_other_types():
    assert type(masked_lm("roberta", config=TINY).model).__name__ == "RobertaForMaskedLM"
    assert type(causal_lm("mistral", config=TINY).model).__name__ == "MistralForCausalLM"


def test_a_new_model_has_the_tokenizer_s_words_and_special_ids():
    masked = masked_lm(config=TINY, tokenizer=tokenizer()).model.config
    assert (masked.vocab_size, masked.pad_token_id) == (40, 7)
    assert masked.bos_token_id != 8, "an encoder has none"
    causal = causal_lm(config=TINY, tokenizer=tokenizer()).model.config
    ids = causal.bos_token_id, causal.eos_token_id, causal.pad_token_id
    assert (causal.vocab_size, ids) == (40, (8, 9, 7))


def test_fields_of_the_recipe_come_before_the_tokenizer_s():
    config = {**TINY, "vocab_size": 64, "pad_token_id": 3}
    found = masked_lm(config=config, tokenizer=tokenizer())
    assert (found.model.config.vocab_size, found.model.config.pad_token_id) == (64, 3)
    assert found.model.get_input_embeddings().num_embeddings == 64, "no table is resized"
    assert found.tokenizer is not None


def test_a_tokenizer_of_more_words_than_the_table_is_refused(tmp_path):
    with pytest.raises(ModelError, match="model: the tokenizer doesn't fit"):
        masked_lm(config={**TINY, "vocab_size": 39}, tokenizer=tokenizer(40))
    build("bert").save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="model: the tokenizer doesn't fit"):
        masked_lm(pretrained=str(tmp_path), tokenizer=tokenizer(91))
    assert masked_lm(pretrained=str(tmp_path), tokenizer=tokenizer(90)).model.config.vocab_size == 90


@pytest.mark.parametrize("make", [masked_lm, causal_lm])
def test_ids_with_gaps_have_rows_up_to_the_largest(make, tmp_path):
    gapped = tokenizer(40)
    words = {**gapped.get_vocab(), "far": 77}
    gapped.backend_tokenizer.model = models.WordLevel(words, unk_token="w0")
    assert (len(gapped), gapped.get_vocab()["far"]) == (41, 77)
    model = make("bert" if make is masked_lm else "llama", config=TINY, tokenizer=gapped).model
    assert model.config.vocab_size == 78
    assert model(torch.tensor([[77]])).logits.shape == (1, 1, 78)
    with pytest.raises(
        ModelError, match=r"doesn't fit \(its largest id is 77, the model's embedding has 77 rows\)"
    ):
        make(config={**TINY, "vocab_size": 77}, tokenizer=gapped)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model_type": "bort"}, "model.model_type 'bort' is not a transformers model type"),
        (
            {"config": {"hiden_size": 3}},
            "model.config.hiden_size is not a field of BertConfig; nearest: hidden_size",
        ),
        ({"config": {"zzzz": 3}}, "model.config.zzzz is not a field of BertConfig"),
    ],
)
def test_mistakes_are_named(options, message):
    with pytest.raises(ModelError) as error:
        masked_lm(**options)
    assert str(error.value) == message


def test_what_cannot_be_built_is_said():
    with pytest.raises(ModelError, match=r"model: bert can't be built: ValueError: The hidden size"):
        masked_lm(config={**TINY, "hidden_size": 30})
    with pytest.raises(ModelError, match="model: llama can't be built: "):
        masked_lm("llama", config=TINY)


def test_the_nearest_field_alone():
    assert nearest_field("strat", ["start", "strata", "stray"]) == "; nearest: strata"
    assert nearest_field("qqq", ["start"]) == ""


def test_an_error_in_a_line(monkeypatch):
    assert errors.in_short(KeyError("a\n  b")) == r"KeyError: 'a\n b'"
    assert errors.in_short(ValueError("a\n  b")) == "ValueError: a b"
    assert errors.in_short(ValueError("x" * 500)) == f"ValueError: {'x' * 300}"
    monkeypatch.setattr(errors, "unsafe_pickles", lambda: "the reason")
    assert errors.in_short(OSError("no file")) == "OSError: no file"
    missing = errors.in_short(OSError("no model.safetensors"))
    assert missing == "OSError: no model.safetensors; no other format is read here: the reason"
    monkeypatch.setattr(errors, "unsafe_pickles", lambda: None)
    assert errors.in_short(OSError("no model.safetensors")) == "OSError: no model.safetensors"


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_metrics_are_means_over_labelled_tokens(family):
    """Two of five labels are guessed; a label of 100 isn't one that is left out."""
    made = composer_model(build(family, vocab_size=120))
    logits = torch.randn(2, 4, 120, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[100, -100, 5, -100], [-100, 6, 101, 7]])
    logits[0, 0, 100] = logits[1, 2, 101] = 50
    metrics = made.get_metrics(is_train=False)
    assert set(metrics) == {"LanguageCrossEntropy", "MaskedAccuracy"}
    for metric in metrics.values():
        metric.update(logits, labels)
    kept = labels != -100
    losses = -logits[kept].double().log_softmax(-1).gather(1, labels[kept][:, None])
    assert float(metrics["LanguageCrossEntropy"].compute()) == pytest.approx(float(losses.mean()), rel=1e-5)
    assert float(metrics["MaskedAccuracy"].compute()) == pytest.approx(2 / 5)


def test_training_has_metrics_where_asked():
    assert composer_model(build("bert")).get_metrics(is_train=True) == {}
    made = composer_model(build("bert"), train_metrics=True)
    assert set(made.get_metrics(is_train=True)) == {"LanguageCrossEntropy", "MaskedAccuracy"}


def test_evaluation_gives_logits_of_the_labels_places():
    made = composer_model(build("bert"))
    inputs = batch("bert")
    with torch.no_grad():
        expected = made.model(**inputs).logits
        assert torch.equal(made.eval_forward(dict(inputs)), expected)


def test_adapters():
    made = causal_lm(config=TINY, lora={"r": 3})
    assert has_adapters(made)
    adapted = made.model.peft_config["default"]
    assert (adapted.r, adapted.task_type) == (3, "CAUSAL_LM")
    names = {name.partition(".lora_")[0] for name, _ in made.named_parameters() if ".lora_" in name}
    assert len(names) == 2 * 7, "on every linear layer but the head"
    masked = masked_lm(config=TINY, lora={"r": 3})
    assert has_adapters(masked)
    assert masked.model.peft_config["default"].task_type is None
    assert not has_adapters(masked_lm(config=TINY, lora={}))
    assert not has_adapters(SimpleNamespace())


def test_fields_of_adapters():
    assert lora_config({}, causal=True).target_modules == "all-linear"
    given = lora_config({"target_modules": ["query"], "task_type": "FEATURE_EXTRACTION"}, causal=True)
    assert (given.target_modules, given.task_type) == ({"query"}, "FEATURE_EXTRACTION")
    with pytest.raises(ModelError, match=r"^model\.lora: .*layers_to_transform"):
        lora_config({"layers_to_transform": [0]}, causal=True)
    with pytest.raises(ModelError, match=r"^model\.lora\.qqq is not a field of LoraConfig$"):
        lora_config({"qqq": 3}, causal=True)


def test_adapters_need_peft(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ModelError, match=r"model\.lora needs peft: pip install 'cadenza\[lora\]'"):
        causal_lm(config=TINY, lora={"r": 3})


def test_a_causal_model_loads_what_it_was(tmp_path):
    model = build("gpt2")
    model.save_pretrained(tmp_path)
    ids = batch("gpt2", padding=None)["input_ids"]
    ours = causal_lm(pretrained=str(tmp_path)).model.eval()
    with torch.no_grad():
        expected = AutoModelForCausalLM.from_pretrained(tmp_path).eval()(ids).logits
        assert torch.equal(ours(ids).logits, expected)


@pytest.mark.parametrize(
    ("fields", "lora", "dtype"),
    [
        ({}, None, torch.float32),  # a step of AdamW is smaller than bfloat16 resolves
        ({"dtype": "bfloat16"}, None, torch.bfloat16),
        ({"dtype": "auto"}, None, torch.bfloat16),
        ({}, {"r": 2}, torch.bfloat16),  # they aren't trained
        ({"dtype": "float32"}, {"r": 2}, torch.float32),
    ],
)
def test_weights_that_are_trained_are_float32_unless_told(fields, lora, dtype, tmp_path):
    build("llama").bfloat16().save_pretrained(tmp_path)
    made = causal_lm(pretrained=str(tmp_path), config=fields, lora=lora)
    trained = {p.dtype for p in made.parameters() if p.requires_grad}
    base = {p.dtype for name, p in made.named_parameters() if ".lora_" not in name}
    assert base == {dtype}
    assert trained == ({torch.float32} if lora else {dtype})
