"""The QLoRA recipe takes a step: adapters on 4-bit weights under gradient checkpointing."""

import warnings

import torch
from paths import ROOT

from cadenza.quantization.stored.quantized_linear import Quantized
from cadenza.recipe import load, run, trainer

FILES = [str(ROOT / "yamls" / name) for name in ("qlora.yaml", "scale/cpu_decoder.yaml")]
SIZES = [
    "model.config.hidden_size=32",
    "model.config.intermediate_size=48",
    "model.config.num_hidden_layers=2",
]
SIZES += [
    "data.max_seq_len=24",
    "tokenizer.vocab_size=300",
    "model.lora.r=4",
    "model.gradient_checkpointing=true",
]
STEP = [
    "train.max_duration=1ba",
    "train.eval_interval=1ba",
    "train.save_interval=1ba",
    "scheduler.t_warmup=0ba",
]
STEP += ["train.progress_bar=false", "data.long_documents=split"]


def test_a_step_moves_the_adapters_alone(text, tmp_path):
    paths = [f"data.source={text}", f"train.run_folder={tmp_path / 'runs'}"]
    recipe = load(FILES, [*SIZES, *STEP, *paths])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        settings, task = trainer.trainer_settings(recipe), run.task_of(recipe)
        made = trainer.build_trainer(task, settings, task.model(), *task.data())
        model = made.state.model.model
        before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
        made.fit()
    assert any(isinstance(module, Quantized) for module in model.modules())
    assert model.base_model.model.model.gradient_checkpointing
    changed = {key for key, tensor in model.state_dict().items() if not torch.equal(before[key], tensor)}
    assert all(".lora_" in key for key in changed)
    assert {key for key in before if ".lora_B." in key} <= changed, "A has no gradient while B is zero"
