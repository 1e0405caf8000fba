"""The anchor of a run's windows is the BOS of its tokenizer, in its folder and once exported."""

import json

import pytest
from transformers import AutoTokenizer

from cadenza.data.text.marks.anchor import anchor_id
from cadenza.models import export
from cadenza.recipe import run

pytestmark = pytest.mark.slow

RECIPE = """
name: tiny
model:
  objective: causal_lm
  model_type: llama
  config: {hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 16}
tokenizer: {name: byte_bpe, vocab_size: 300}
data: {max_seq_len: 32, anchor_token: "[MASK]"}
algorithms: {anchor_attention: }
train: {max_duration: 2ba, global_batch_size: 2, eval_interval: 1dur, save_interval: 1ba, progress_bar: false}
"""


def test_it_is_carried_to_where_the_model_is_used(recipe, tmp_path, text):
    own = f"data.source={text}", "data.eval_fraction=0.2"
    first = recipe(*own)
    assert json.loads(run.train(first).read_text())["recipe"]["data"]["anchor_token"] == "[MASK]"
    exported = export(first.checkpoints / "ep0-ba2-rank0.pt", tmp_path / "exported")
    for folder in (first.folder / "tokenizer", exported):
        tokenizer = AutoTokenizer.from_pretrained(folder)
        assert tokenizer.bos_token == "[MASK]"
        assert anchor_id(tokenizer) == tokenizer.convert_tokens_to_ids("[MASK]")
    saved = f"train.load_path={first.checkpoints}/ep0-ba1-rank0.pt"
    again = recipe(*own, "name=again", saved, "train.trust_load_path=true")
    assert json.loads(run.train(again).read_text())["train"]["batches"] == 2
    config = json.loads((exported / "config.json").read_text())
    assert config["bos_token_id"] == anchor_id(AutoTokenizer.from_pretrained(exported))
