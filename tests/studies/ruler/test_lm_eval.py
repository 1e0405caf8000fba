"""A saved folder in lm-eval: a task of a local file, without a network, gives what the model itself gives."""

import json
import os
import subprocess
import sys

import pytest
import torch
from families import build

from cadenza.algorithms import apply_alibi
from cadenza.data import train_byte_bpe
from cadenza.data.text.datasets.windows import anchor_id
from cadenza.models import save

TASK = """
task: local_choice
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: choices
doc_to_target: label
metric_list: [{{metric: acc}}]
"""
ROWS = [{"question": f"number {n} is", "choices": ["odd", "even", "none"], "label": n % 3} for n in range(9)]


def scored(model, words, row):
    """The log-likelihood of each choice behind the anchor and the question."""
    found = []
    for choice in row["choices"]:
        start = [anchor_id(words), *words(row["question"], add_special_tokens=False)["input_ids"]]
        whole = f"{row['question']} {choice}"
        ids = [start[0], *words(whole, add_special_tokens=False)["input_ids"]]
        with torch.no_grad():
            logs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        found.append(sum(float(logs[n - 1, ids[n]]) for n in range(len(start), len(ids))))
    return found


@pytest.mark.slow
def test_lm_eval_scores_a_saved_folder_behind_its_anchor(tmp_path):
    pytest.importorskip("lm_eval", reason="NOT VERIFIED HERE: needs lm-eval")
    words = train_byte_bpe([row["question"] for row in ROWS], 300)
    words.bos_token = words.cls_token  # lm-eval knows no other token to put in front
    model = build("llama", vocab_size=len(words), initializer_range=0.3)
    apply_alibi(model)
    save(model, tmp_path / "model", words)
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    (tmp_path / "task.yaml").write_text(TASK.format(file=tmp_path / "rows.jsonl"))
    arguments = f"pretrained={tmp_path / 'model'},dtype=float32,add_bos_token=True,trust_remote_code=True"
    command = [sys.executable, "-m", "lm_eval", "--model", "hf", "--model_args", arguments]
    command += ["--tasks", "local_choice", "--include_path", str(tmp_path), "--device", "cpu"]
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(tmp_path / "cache")}
    command += ["--output_path", str(tmp_path / "out"), "--log_samples"]
    done = subprocess.run(command, env={**os.environ, **offline}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    (samples,) = (tmp_path / "out").rglob("samples_local_choice_*.jsonl")
    for line in samples.read_text().splitlines():
        sample = json.loads(line)
        theirs = [float(answer[0][0]) for answer in sample["resps"]]
        assert theirs == pytest.approx(scored(model, words, sample["doc"]), abs=1e-4)
