"""Every option of the sections `model` and `tokenizer` of a recipe for text, by what it changes."""

import json
from dataclasses import fields

import pytest
import torch
from families import build
from transformers import PreTrainedTokenizerFast

from cadenza.data import DataError, train_wordpiece
from cadenza.data.text.tokenizer_config import TokenizerConfig
from cadenza.data.text.vocabulary import TRAINERS
from cadenza.models import ModelError, has_adapters
from cadenza.recipe import RecipeError
from cadenza.recipe.parallelism import is_layer
from cadenza.recipe.run import task_of
from cadenza.recipe.schema import Model

RECIPE = """
model: {config: {hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 4, intermediate_size: 48}}
tokenizer: {vocab_size: 300}
data: {max_seq_len: 16, eval_fraction: 0.3}
train: {global_batch_size: 4}
"""


@pytest.fixture
def built(recipe, tmp_path):
    """The model and the tokenizer of RECIPE with these pairs."""
    saved().save_pretrained(tmp_path / "bert")
    folder_of_tokenizer(tmp_path / "own")

    def built(*pairs):
        task = task_of(recipe(*(pair.format(tmp_path) for pair in pairs)))
        return task.model(), task.tokenizer

    return built


def kind(model):
    return type(model.model).__name__


def saved():
    return build("bert", seed=5, vocab_size=300)


def same_as_saved(model):
    theirs = saved().state_dict()
    ours = model.model.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in theirs)


def rank_of_adapters(model):
    return model.model.peft_config["default"].r if has_adapters(model) else None


CAUSAL = ["model.objective=causal_lm", "model.model_type=llama"]
MODELS = {
    "objective": (CAUSAL, kind, "BertForMaskedLM", "LlamaForCausalLM"),
    "model_type": (["model.model_type=electra"], kind, "BertForMaskedLM", "ElectraForMaskedLM"),
    "pretrained": (["model.pretrained={}/bert", "tokenizer.name={}/own"], same_as_saved, False, True),
    "attention": (["model.attention=eager"], lambda m: m.model.config._attn_implementation, "sdpa", "eager"),
    "config": (["model.config.hidden_size=16"], lambda m: m.model.config.hidden_size, 32, 16),
    "gradient_checkpointing": (
        ["model.gradient_checkpointing=true"],
        lambda m: m.model.is_gradient_checkpointing,
        False,
        True,
    ),
    "lora": ([*CAUSAL, "model.lora.r=3"], rank_of_adapters, None, 3),
}


def test_no_option_of_model_and_tokenizer_is_missing_here():
    assert set(MODELS) == {f.name for f in fields(Model)}
    assert {"name", "vocab_size", "lowercase", "strip_accents", "cache_dir", "new_tokens"} == {
        f.name for f in fields(TokenizerConfig)
    }


@pytest.mark.parametrize("option", MODELS)
def test_an_option_of_the_model(option, built):
    pairs, found, before, after = MODELS[option]
    assert (found(built()[0]), found(built(*pairs)[0])) == (before, after)


def test_a_model_knows_its_tokenizer_and_its_layers(built):
    model, tokenizer = built()
    assert model.tokenizer is tokenizer
    assert model.model.config.vocab_size == len(tokenizer)
    wrapped = [module for module in model.model.modules() if model.model.fsdp_wrap_fn(module)]
    assert wrapped == list(model.model.bert.encoder.layer)
    assert not is_layer(model.model)


def folder_of_tokenizer(path, **special):
    train_wordpiece([f"word{n}" for n in range(50)], 300).save_pretrained(path)
    config = json.loads((path / "tokenizer_config.json").read_text())
    config.update(special)
    (path / "tokenizer_config.json").write_text(json.dumps(config))
    return path


def test_a_tokenizer_of_a_folder(built, tmp_path):
    theirs = PreTrainedTokenizerFast.from_pretrained(folder_of_tokenizer(tmp_path / "a"))
    assert built("tokenizer.name={}/a")[1].get_vocab() == theirs.get_vocab() != built()[1].get_vocab()


def test_masks_are_wanted_of_masked_models_alone(built, tmp_path):
    folder_of_tokenizer(tmp_path / "a", mask_token=None)
    with pytest.raises(DataError, match="has no mask_token; masked LM needs them all"):
        built("tokenizer.name={}/a")
    model, tokenizer = built("tokenizer.name={}/a", *CAUSAL)
    assert (tokenizer.mask_token, type(model.model).__name__) == (None, "LlamaForCausalLM")


def test_a_pretrained_model_has_words_of_its_own(built):
    """A vocabulary that is trained here gives other ids; the embedding has rows enough for them."""
    with pytest.raises(
        RecipeError, match=r"^tokenizer.name is 'wordpiece', whose ids stand for other words; name"
    ):
        built("model.pretrained={}/bert")


def test_a_causal_model_does_not_see_what_it_is_to_predict(built):
    said = r"^model.model_type 'bert' attends in both directions; causal_lm needs another model type"
    with pytest.raises(RecipeError, match=said):
        built("model.objective=causal_lm")
    model, _ = built("model.objective=causal_lm", "model.config.is_decoder=true")
    ids = torch.arange(8)[None]
    before = model.model.eval()(ids).logits
    ids[0, -1] = 9
    assert torch.equal(model.model(ids).logits[:, :-1], before[:, :-1])


def test_a_model_of_more_than_text_is_refused(built):
    with pytest.raises(
        ModelError, match=r"^model.model_type 'gemma3' has no vocabulary of its own: it isn't a model"
    ):
        built("model.objective=causal_lm", "model.model_type=gemma3")


def test_a_tokenizers_size_and_where_it_is_kept(built, tmp_path):
    rich = tmp_path / "rich.jsonl"
    rich.write_text("".join(json.dumps({"text": f"{n * n}th w{n}ord"}) + "\n" for n in range(400)))
    for size in (300, 310):
        assert len(built("data.source={}/rich.jsonl", f"tokenizer.vocab_size={size}")[1]) == size
    assert not (tmp_path / "kept").exists()
    built("tokenizer.cache_dir={}/kept")
    (kept,) = (tmp_path / "kept/tokenizers").iterdir()
    assert kept.name.startswith("wordpiece-300-")


@pytest.mark.parametrize("name", TRAINERS)
def test_a_tokenizers_kind_case_and_accents(built, name, tmp_path):
    def words(*pairs):
        tokenizer = built(f"tokenizer.name={name}", "tokenizer.vocab_size=400", *pairs)[1]
        assert tokenizer.init_kwargs["trained"]["name"] == name
        return tokenizer.decode(tokenizer("Numb\u00e9r", add_special_tokens=False)["input_ids"])

    (tmp_path / "text.jsonl").write_text(json.dumps({"text": "Numb\u00e9r numb\u00e9r Number number"}) + "\n")
    whole = "data.eval_source={}/text.jsonl"  # all of `source` is trained on
    assert words(whole) == "Numb\u00e9r"
    assert words(whole, "tokenizer.lowercase=true") == "numb\u00e9r"
    assert words(whole, "tokenizer.strip_accents=true") == "Number"


def test_a_tokenizer_learns_from_training_text_alone(built, text, tmp_path):
    """Another evaluation text changes nothing; another training text does."""
    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps({"text": "zebra " * 9}) + "\n")
    everything = built("data.eval_source={}/other.jsonl")[1].get_vocab()
    assert "zebra" not in everything
    trained = built("data.source={}/other.jsonl", "data.eval_source=" + str(text))[1].get_vocab()
    assert "zebra" in trained
