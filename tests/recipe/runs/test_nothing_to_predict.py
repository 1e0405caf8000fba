"""Documents that hold nothing to predict, in micro-batches of one row: no run divides by zero."""

import json
import math

import pytest

from cadenza.data import DataError
from cadenza.recipe import run

RECIPE = """
name: tiny
model: {config: {hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 16}}
tokenizer: {vocab_size: 300}
data: {max_seq_len: 8}
train:
  max_duration: 4ba
  global_batch_size: 4
  device_train_microbatch_size: 1
  eval_interval: 1dur
  progress_bar: false
"""
# Of one token, of special tokens alone, of nothing, and ordinary ones; numbers make marks of WordPiece.
TEXTS = [*(["a"] * 20), *(["[SEP] [MASK]", "", " \n"] * 5), *(f"a{n} b{n} c d e" for n in range(20))]
RARE = ["data.mlm_probability=0.001", "data.eval_mlm_probability=0.001"]
LLAMA = ["model.objective=causal_lm", "model.model_type=llama", "model.config.num_key_value_heads=2"]
CAUSAL = [*LLAMA, "data.boundary_loss=false"]
RUNS = {
    "tokens": RARE,
    "words": [*RARE, "data.masking=whole_word"],
    "packed": [*RARE, "algorithms.sequence_packing={}"],
    "labelled rows alone": [*RARE, "algorithms.sparse_prediction={}", "algorithms.unpadding={}"],
    "one token a row": [*RARE, "data.max_seq_len=3", "data.long_documents=split"],
    "unigram": [*RARE, "tokenizer.name=unigram", "data.masking=whole_word"],
    "rows cut to their first two tokens": [
        *RARE,
        "algorithms.seq_length_warmup={duration: 1.0, min_seq_length: 2, max_seq_length: 8, step_size: 1}",
        "train.max_duration=20ba",
    ],
    "causal": CAUSAL,
    "windows of three": [*CAUSAL, "data.max_seq_len=3"],
    "tagged": [*CAUSAL, "data.domain_tag=a a a"],
    "tagged rows cut to the tag": [
        *CAUSAL,
        "data.domain_tag=a a a",
        "algorithms.seq_length_warmup={duration: 1.0, min_seq_length: 2, max_seq_length: 8, step_size: 1}",
        "train.max_duration=20ba",
    ],
}


@pytest.fixture
def files(tmp_path):
    """Pairs that name text for training and for evaluation."""

    def files(train, evaluation):
        for name, texts in (("train", train), ("eval", evaluation)):
            lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
            (tmp_path / f"{name}.jsonl").write_text(lines)
        return [f"data.source={tmp_path}/train.jsonl", f"data.eval_source={tmp_path}/eval.jsonl"]

    return files


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", RUNS)
def test_a_run_ends_with_numbers(recipe, files, name):
    record = json.loads(run.train(recipe(*files(TEXTS, TEXTS), *RUNS[name])).read_text())
    results = [record["train"]["loss"], *record["eval"].values()]
    assert all(math.isfinite(number) for number in results), results
    assert record["eval"]["loss"] > 0


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("part", ["training", "evaluation"])
def test_text_without_anything_to_predict_is_refused_before_training(recipe, files, part):
    nothing = ["[SEP]", "", "[CLS] [SEP]"] * 4
    texts = files(*((nothing, TEXTS) if part == "training" else (TEXTS, nothing)))
    with pytest.raises(DataError, match=rf"gives 12 documents and 0 sequences for {part}; a batch takes"):
        run.train(recipe(*texts))


@pytest.mark.filterwarnings("ignore")
def test_text_of_unknown_words_is_refused_before_training(recipe, files):
    unknown = ["\u1202\u120e", "\u0531\u0532"] * 9
    with pytest.raises(DataError, match=r"tokenizer.name: 100% of the tokens .* are \[UNK\], unknown words;"):
        run.train(recipe(*files(TEXTS, unknown)))
