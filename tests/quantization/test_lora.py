"""LoRA on quantized weights: what trains, what is saved, in a Trainer and in a recipe."""

import warnings

import pytest
import torch
from composer import Trainer
from families import batch, build

from cadenza.algorithms import (
    PostTrainingQuantization,
    apply_anchor_attention,
    apply_post_training_quantization,
)
from cadenza.models import ModelError, has_adapters
from cadenza.models.language_model import composer_model
from cadenza.models.lora import lora_config
from cadenza.quantization.quantized_linear import Quantized

LORA = {"r": 4, "init_lora_weights": False}


def with_adapters(quantize):
    """Adapters before and after quantization: the same model."""
    from peft import get_peft_model

    model = build("llama")
    if quantize == "first":
        apply_post_training_quantization(model, "nf4-dq")
    torch.manual_seed(3)
    adapted = get_peft_model(model, lora_config(LORA, causal=True))
    if quantize == "later":
        report = apply_post_training_quantization(adapted, "nf4-dq")
        adapters = [path for path, why in report.skipped.items() if why == "it is an adapter"]
        assert len(adapters) == 28
    return adapted


def test_before_or_after_quantization():
    first, later = with_adapters("first"), with_adapters("later")
    assert sum(isinstance(module, Quantized) for module in later.modules()) == 14
    inputs = batch("llama")
    assert torch.equal(first(**inputs).logits, later(**inputs).logits)


def test_the_adapters_train_alone():
    model = with_adapters("first").train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(5):
        loss = model(**batch("llama")).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    changed = {key for key, value in model.state_dict().items() if not torch.equal(before[key], value)}
    assert changed == {key for key in before if ".lora_" in key}


def test_merging_into_codes_raises():
    with pytest.raises(RuntimeError):
        with_adapters("first").merge_and_unload()


def trainer(folder, **kwargs):
    data = torch.utils.data.DataLoader([batch("llama", seed=seed) for seed in range(4)], batch_size=None)
    model = composer_model(build("llama"), adapters=lora_config(LORA, causal=True))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(optimizer|device_train|scheduler|tokenizer).*")
        return Trainer(
            model=model,
            train_dataloader=data,
            max_duration="1ep",
            algorithms=[PostTrainingQuantization("nf4")],
            optimizers=torch.optim.AdamW(model.parameters(), lr=1e-2),
            save_folder=str(folder),
            save_interval="2ba",
            device_train_microbatch_size=3,
            progress_bar=False,
            **kwargs,
        )


def test_composer_trains_and_resumes(tmp_path):
    torch.manual_seed(3)
    whole = trainer(tmp_path)
    held = {p for group in whole.state.optimizers[0].param_groups for p in group["params"]}
    assert all(p.is_floating_point() for p in held)
    whole.fit()
    saved = torch.load(tmp_path / "ep0-ba2-rank0.pt", weights_only=False)["state"]["model"]
    assert all(".lora_" in key for key in saved), "the checkpoint holds the adapters alone"
    resumed = trainer(tmp_path / "more", load_path=str(tmp_path / "ep0-ba2-rank0.pt"))
    resumed.fit()
    inputs = batch("llama")
    ours, theirs = (t.state.model.model.eval()(**inputs).logits for t in (resumed, whole))
    assert torch.equal(ours, theirs)


def test_document_ids_pass_through_the_adapters():
    model = composer_model(build("llama"), adapters=lora_config(LORA, causal=True))
    apply_anchor_attention(model, "intra_document")
    ids = torch.randint(3, 90, (1, 8), generator=torch.Generator().manual_seed(0))
    documents = torch.tensor([[0, 1, 1, 1, 2, 2, 2, 2]])
    changed = ids.clone()
    changed[0, 2] = 7
    with torch.no_grad():
        one, other = (model({"input_ids": x, "document_ids": documents}).logits for x in (ids, changed))
    assert torch.equal(one[:, 4:], other[:, 4:])
    assert not torch.equal(one[:, 2], other[:, 2])


def test_bad_fields():
    with pytest.raises(
        ModelError, match=r"model\.lora\.lora_alfa is not a field of LoraConfig; nearest: lora_alpha"
    ):
        lora_config({"lora_alfa": 3}, causal=True)
    assert has_adapters(composer_model(build("llama"), adapters=lora_config(LORA, causal=True)))
    assert not has_adapters(composer_model(build("llama")))
