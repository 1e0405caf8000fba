"""A run that loads a checkpoint goes on with the checkpoint's words, or says that the recipe has others."""

import json
import shutil
import warnings

import pytest
import torch
from tokenizers import normalizers
from transformers import PreTrainedTokenizerFast

from cadenza.data import DataError, TokenizerConfig, train_wordpiece
from cadenza.data.text.vocabulary import SPECIAL, TRAINERS
from cadenza.recipe import RecipeError, checkpoint_tokenizer, load, run

RECIPE = """
name: tiny
model: {config: {hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 16}}
tokenizer: {vocab_size: 300}
data: {max_seq_len: 24, eval_fraction: 0.2}
train: {max_duration: 1ba, global_batch_size: 8, eval_interval: 1dur, save_interval: 1ba, progress_bar: false}
"""
TEXT = ["the cat sat on the mat", "a dog ran"]


def no_other(*_):
    raise AssertionError("the tokenizer isn't trained again")


def checkpoint_with(path, tokenizer, **config):
    """A checkpoint with the files of `tokenizer`, as Composer puts them in; `config` is changed in them."""
    from composer.models import HuggingFaceModel
    from transformers import BertConfig, BertForMaskedLM

    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    model = HuggingFaceModel(BertForMaskedLM(BertConfig(vocab_size=400, **sizes)), tokenizer)
    content = model.get_metadata()
    files = content.get("tokenizer") or {}
    for name, value in config.items():
        files["tokenizer_config.json"]["content"][name] = value
    torch.save({"state": {"model": {}, "integrations": {"huggingface": content}}}, path)
    return path


def of_run(path, build=no_other, **options):
    return checkpoint_tokenizer.of_run(path, TokenizerConfig(**{"vocab_size": 300, **options}), build)


@pytest.mark.slow
def test_a_resume_takes_the_runs_own_words(recipe, tmp_path, monkeypatch, capsys):
    """Also without the cache, on a machine whose trainer would make other words of the text."""

    def played(*pairs):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return json.loads(run.train(recipe(*pairs)).read_text())

    first = played()
    shutil.rmtree(tmp_path / "cache")
    monkeypatch.setitem(TRAINERS, "wordpiece", no_other)
    again = played("train.autoresume=true")
    assert "nothing left to train" in capsys.readouterr().out
    assert again["eval"] == first["eval"]
    checkpoint = tmp_path / "runs/tiny/checkpoints/ep0-ba1-rank0.pt"
    lines = (json.dumps({"text": f"number and more words {n * n * n}"}) + "\n" for n in range(40))
    (tmp_path / "other.jsonl").write_text("".join(lines))
    more = "train.max_duration=2ba", f"data.source={tmp_path}/other.jsonl", "data.eval_fraction=0.5"
    loaded = f"train.load_path={checkpoint}", "train.load_weights_only=true"
    other = played("name=other", "train.global_batch_size=1", *loaded, *more)
    assert other["parameters"] == first["parameters"]
    kept = PreTrainedTokenizerFast.from_pretrained(tmp_path / "runs/other/tokenizer")
    assert (
        kept.get_vocab()
        == PreTrainedTokenizerFast.from_pretrained(tmp_path / "runs/tiny/tokenizer").get_vocab()
    )
    with pytest.raises(
        RecipeError,
        match=r"^command line: tokenizer.vocab_size is 310; .*ep0-ba1-rank0.pt was trained with 300$",
    ):
        played("train.autoresume=true", "tokenizer.vocab_size=310")


@pytest.mark.parametrize("folding", [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize("name", TRAINERS)
def test_what_was_asked_for_must_be_asked_for_again(tmp_path, name, folding):
    own = {"vocab_size": 300, "lowercase": folding[0], "strip_accents": folding[1]}
    trained = TRAINERS[name](TEXT, **own)
    path = checkpoint_with(tmp_path / "a.pt", trained)
    assert of_run(path, name=name, **own).get_vocab() == trained.get_vocab()
    other = "wordpiece" if name == "byte_bpe" else "byte_bpe"
    changes = {"vocab_size": 301, "lowercase": not folding[0], "strip_accents": not folding[1], "name": other}
    for key, value in changes.items():
        asked = {"name": name, **own}
        message = rf"^tokenizer.{key} is {value!r}; {path} was trained with {asked[key]!r}$"
        with pytest.raises(RecipeError, match=message):
            of_run(path, **{**asked, key: value})


def earlier():
    """A tokenizer as the first versions trained it: it strips accents, and doesn't say what was asked for."""
    plain = train_wordpiece(TEXT, 300).backend_tokenizer
    plain.normalizer = normalizers.BertNormalizer(lowercase=True)
    return PreTrainedTokenizerFast(tokenizer_object=plain, **SPECIAL)


def test_checkpoints_of_earlier_versions_go_on_with_their_own(tmp_path):
    path = checkpoint_with(tmp_path / "a.pt", earlier())
    folding = {"lowercase": True, "strip_accents": True}
    found = of_run(path, vocab_size=4000, **folding)
    assert found("The c\u00e0t")["input_ids"] == found("the cat")["input_ids"]
    for key in folding:
        with pytest.raises(RecipeError, match=rf"tokenizer.{key} is False; .* was trained with True$"):
            of_run(path, **{**folding, key: False})
    with pytest.raises(RecipeError, match=r"tokenizer.name is 'byte_bpe'; .* was trained with 'wordpiece'$"):
        of_run(path, name="byte_bpe", **folding)
    large = PreTrainedTokenizerFast(
        tokenizer_object=train_wordpiece([f"{n}th w{n}" for n in range(400)], 320).backend_tokenizer,
        **SPECIAL,
    )
    with pytest.raises(RecipeError, match=r"tokenizer.vocab_size is 300; .* was trained with 320$"):
        of_run(checkpoint_with(tmp_path / "b.pt", large))


@pytest.mark.parametrize("name", ["wordpiece", "byte_bpe"])
def test_a_checkpoint_that_says_nothing_of_case_is_looked_at(tmp_path, name):
    """Its WordPiece lower-cased and kept accents; its byte pairs kept both."""
    lower = name == "wordpiece"
    trained = TRAINERS[name](TEXT, 300, lowercase=lower)
    path = checkpoint_with(tmp_path / "a.pt", trained, trained={"name": name, "vocab_size": 300})
    assert of_run(path, name=name, lowercase=lower).get_vocab() == trained.get_vocab()
    with pytest.raises(RecipeError, match=rf"^tokenizer.lowercase is {not lower}; {path} was .* {lower}$"):
        of_run(path, name=name, lowercase=not lower)
    with pytest.raises(RecipeError, match=rf"^tokenizer.strip_accents is True; {path} was .* False$"):
        of_run(path, name=name, lowercase=lower, strip_accents=True)


def changed(key):
    """A tokenizer that differs in one respect."""
    tokenizer = train_wordpiece([*TEXT, "more"] if key == "words" else TEXT, 300)
    if key == "case":
        tokenizer.backend_tokenizer.normalizer = normalizers.NFC()
    if key == "special":
        tokenizer.pad_token = "[MASK]"
    return tokenizer


@pytest.mark.parametrize("key", ["words", "case", "special"])
def test_a_named_tokenizer_must_be_the_checkpoints(tmp_path, key):
    path = checkpoint_with(tmp_path / "a.pt", train_wordpiece(TEXT, 300))
    own = train_wordpiece(TEXT, 300)
    assert of_run(path, lambda: own, name="some/name") is own
    with pytest.raises(
        RecipeError, match=rf"tokenizer.name: some/name isn't the tokenizer of {path} \(\d+ words, "
    ):
        of_run(path, lambda: changed(key), name="some/name")


def test_a_checkpoint_without_a_tokenizer_needs_a_named_one(tmp_path):
    own = train_wordpiece(TEXT, 300)
    torch.save({"state": {"model": {}}}, tmp_path / "a.pt")
    for path, reason in (
        (checkpoint_with(tmp_path / "b.pt", None), "has no tokenizer"),
        (tmp_path / "a.pt", "has no tokenizer"),
        ("s3://there/a.pt", "would be downloaded too late"),
    ):
        with pytest.raises(
            RecipeError, match=rf"tokenizer.name: {path} {reason}; name the folder of the one"
        ):
            of_run(path)
        assert of_run(path, lambda: own, name="some/name") is own


def test_a_tokenizer_that_can_not_be_read_is_said(tmp_path):
    path = checkpoint_with(tmp_path / "a.pt", earlier(), tokenizer_class=3)
    with pytest.raises(RecipeError, match=rf"^{path}: its tokenizer can't be read \("):
        of_run(path)


def test_special_tokens_are_asked_of_the_checkpoints_own(tmp_path):
    path = checkpoint_with(tmp_path / "a.pt", earlier(), mask_token=None)
    task = run.LanguageModelling(
        load([], [f"tokenizer.{pair}" for pair in ("vocab_size=300", "lowercase=true", "strip_accents=true")])
    )
    task.checkpoint = path
    with pytest.raises(
        DataError, match=rf"tokenizer.name: {path} has no mask_token; masked LM needs them all$"
    ):
        _ = task.tokenizer


def test_one_that_ends_documents_otherwise_is_another(tmp_path):
    """Special tokens by their roles: the same words with another padding."""
    assert not checkpoint_tokenizer.alike(train_wordpiece(TEXT, 300), changed("special"))
    assert checkpoint_tokenizer.alike(train_wordpiece(TEXT, 300), changed(None))
