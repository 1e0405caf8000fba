"""LoRA on quantized weights: what trains, what is saved, in a Trainer and in a recipe."""

import warnings

import pytest
import torch
from composer import Trainer
from families import batch, build
from peft import get_peft_model

from cadenza.algorithms import (
    PostTrainingQuantization,
    apply_anchor_attention,
    apply_post_training_quantization,
    dequantize,
)
from cadenza.models import ModelError, has_adapters
from cadenza.models.language_model import composer_model
from cadenza.models.lora import lora_config
from cadenza.quantization.stored.quantized_linear import Quantized
from cadenza.surgery import SurgeryError

LORA = {"r": 4, "init_lora_weights": False}


def with_adapters(quantize):
    """Adapters before and after quantization: the same model."""
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


@pytest.mark.parametrize("options", [{"init_lora_weights": "pissa"}, {"init_lora_weights": "olora"}])
def test_adapters_that_replace_the_weight_are_refused(options):
    model = build("llama")
    apply_post_training_quantization(model, "nf4")
    before = model(**batch("llama")).logits
    with pytest.raises(SurgeryError, match=r"can't be changed in place; dequantize\(model\)"):
        get_peft_model(model, lora_config({**LORA, **options}, causal=True))
    assert torch.equal(model(**batch("llama")).logits, before)


@pytest.mark.parametrize("name", ["nf4", "nf4-dq", "int8", "int4", "mxfp4", "nvfp4", "fp8"])
def test_adapters_merge_after_dequantization(name):
    model = build("llama").train()  # int8 rounds inputs in eval mode
    apply_post_training_quantization(model, name)
    adapted = get_peft_model(model, lora_config(LORA, causal=True))
    expected = adapted(**batch("llama")).logits
    for merge in (
        adapted.merge_and_unload,
        adapted.merge_adapter,
        lambda: adapted.merge_adapter(safe_merge=True),
    ):
        with pytest.raises(SurgeryError, match=r"dequantize\(model\) .* into which adapters can be merged"):
            merge()
        assert torch.equal(adapted(**batch("llama")).logits, expected)
    assert dequantize(adapted) == 14
    merged = adapted.merge_and_unload()
    assert not any("lora" in key for key in merged.state_dict())
    assert torch.allclose(merged(**batch("llama")).logits, expected, atol=1e-5)


@pytest.mark.parametrize("name", ["nf4", "int8", "nvfp4"])
def test_dora_reads_the_weights(name):
    """Against the same adapters on the same numbers in floating point."""
    found = []
    for floats in (False, True):
        model = build("llama")
        apply_post_training_quantization(model, name)
        if floats:
            dequantize(model)
        torch.manual_seed(3)
        model = get_peft_model(model, lora_config({**LORA, "use_dora": True}, causal=True)).train()
        loss = model(**batch("llama")).loss
        loss.backward()
        found.append(
            {key: p.grad for key, p in model.named_parameters() if p.grad is not None} | {"loss": loss}
        )
    assert found[0].keys() == found[1].keys()
    assert any("magnitude" in key for key in found[0])
    for key, value in found[0].items():
        assert torch.allclose(value, found[1][key], atol=1e-5), key


@pytest.mark.parametrize("reentrant", [True, False])
def test_gradient_checkpointing_changes_no_gradient(reentrant):
    gradients = []
    for checkpointing in (False, True):
        model = with_adapters("first").train()
        if checkpointing:
            model.enable_input_require_grads()
            model.gradient_checkpointing_enable({"use_reentrant": reentrant})
        model(**batch("llama"), use_cache=False).loss.backward()
        gradients.append({key: p.grad for key, p in model.named_parameters() if p.requires_grad})
    assert all(torch.equal(gradients[0][key], grad) for key, grad in gradients[1].items())


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
