"""A tokenizer whose ids have gaps, the largest above the number of its words, through whole runs."""

import json
import math

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer, PreTrainedTokenizerFast

from cadenza.data.survey.examples import batch, examples
from cadenza.data.survey.facts import facts
from cadenza.data.survey.lines import lines
from cadenza.recipe import run
from cadenza.recipe.run import task_of

RECIPE = """
name: tiny
model: {config: {hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 16}}
data: {max_seq_len: 24, eval_fraction: 0.2}
train: {max_duration: 2ba, global_batch_size: 8, eval_interval: 1dur, save_interval: 2ba, progress_bar: false}
"""
SPECIAL = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
WORDS = ["number", "is", "more", "than", "and", "so", "on", "up", "to", *map(str, range(100))]
IDS = {word: 90 + 3 * n for n, word in enumerate(WORDS)}  # 90, 93, ...: two of three ids stand for nothing
VOCABULARY = {"[PAD]": 4, "[UNK]": 11, "[CLS]": 20, "[SEP]": 33, "[MASK]": 60, **IDS}
ROWS = max(VOCABULARY.values()) + 1
LLAMA = ["model.objective=causal_lm", "model.model_type=llama", "model.config.num_key_value_heads=2"]

KINDS = {"rows": [], "packed": ["algorithms.sequence_packing={}"], "causal": LLAMA}


@pytest.fixture
def folder(tmp_path):
    plain = Tokenizer(models.WordLevel(VOCABULARY, unk_token="[UNK]"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    frame = [("[CLS]", VOCABULARY["[CLS]"]), ("[SEP]", VOCABULARY["[SEP]"])]
    plain.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=frame)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, mask_token="[MASK]", **SPECIAL)
    tokenizer.save_pretrained(tmp_path / "gaps")
    assert len(tokenizer) == len(VOCABULARY) < ROWS // 2
    return tmp_path / "gaps"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_with_gaps_trains_resumes_and_is_exported(recipe, folder, tmp_path, main, kind, capsys):
    pairs = [f"tokenizer.name={folder}", "train.autoresume=true", *KINDS[kind]]
    run.train(recipe(*pairs))
    assert "unknown to the tokenizer ([UNK]): " in capsys.readouterr().out
    record = json.loads(run.train(recipe(*pairs, "train.max_duration=4ba")).read_text())
    assert "resumed after batch 2" in capsys.readouterr().out
    assert all(map(math.isfinite, record["eval"].values()))
    assert 0 < record["eval"]["unigram_entropy"] < math.log(len(VOCABULARY))
    assert (
        main(["export", str(tmp_path / "runs/tiny/checkpoints/latest-rank0.pt"), str(tmp_path / "out")]) == 0
    )
    assert AutoTokenizer.from_pretrained(tmp_path / "out").get_vocab() == VOCABULARY
    auto = AutoModelForCausalLM if kind == "causal" else AutoModelForMaskedLM
    model = auto.from_pretrained(tmp_path / "out")
    assert model.get_input_embeddings().weight.shape[0] == model.config.vocab_size == ROWS


def test_masks_draw_words_alone(recipe, folder):
    """No id of a gap is put in a token's place, and each id has its row of the embedding."""
    task = task_of(recipe(f"tokenizer.name={folder}", "train.global_batch_size=48"))
    assert task.model().model.get_input_embeddings().weight.shape[0] == ROWS
    spec = task.data()[0]
    seen = [spec.batch_transforms(rows)["input_ids"] for rows in spec.dataloader]
    assert set(torch.cat([ids.flatten() for ids in seen]).tolist()) <= set(VOCABULARY.values())


@pytest.mark.parametrize("objective", ["masked_lm", "causal_lm"])
def test_a_survey_counts_and_shows_them(recipe, folder, objective):
    chosen = recipe(f"tokenizer.name={folder}", f"model.objective={objective}")
    tokenizer, causal = task_of(chosen).tokenizer, objective == "causal_lm"
    texts = ["number is more", "number zebra"]
    found = facts(texts, tokenizer, chosen.data, causal)
    assert (found.unknown, found.lengths.tolist()) == (1, [3, 2])
    assert "20.00% of the tokens, most often 'zebra' 1" in lines(found, tokenizer, chosen.data, False)[-1]
    shown = " ".join(examples(batch(texts, tokenizer, chosen, 2), tokenizer, causal))
    assert "number" in shown
