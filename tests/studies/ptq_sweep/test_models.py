"""Models as the study loads them: weights unpacked once, hooks of accelerate, what is simulated."""

import pytest
import torch

from cadenza.quantization.stored.formats import FORMATS
from cadenza.quantization.stored.quantized_linear import Quantized
from cadenza.recipe import load_settings
from cadenza.studies.checks import StudyError
from cadenza.studies.memory import weight_bytes
from cadenza.studies.ptq_sweep import models
from cadenza.studies.ptq_sweep.settings import Sweep

pytest.importorskip("bitsandbytes", reason="NOT VERIFIED HERE: needs bitsandbytes")
IDS = torch.randint(3, 90, (2, 9), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def cfg(pairs):
    return load_settings(Sweep, [], pairs)


def logits(model):
    with torch.no_grad():
        return model(IDS).logits


@pytest.mark.parametrize("form", FORMATS)
def test_unpacking_once_changes_no_logit(form, cfg):
    """The product with unpacked weights is the same call of the same numbers: 0.0, not almost."""
    model = models.load(cfg, cfg.models[0], form)
    before, plain = logits(model), logits(models.load(cfg, cfg.models[0]))
    after = logits(models.for_generating(model, form))
    assert torch.equal(before, after)
    assert not torch.equal(before, plain)
    left = [module for module in model.modules() if isinstance(module, Quantized)]
    assert bool(left) != models.simulated(form), "a format with a product of its own keeps it"


def test_int8_has_a_product_of_its_own_everywhere_and_others_on_a_gpu(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert [form for form in FORMATS if not models.simulated(form)] == ["int8"]
    assert not models.simulated("none")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert [f for f in FORMATS if not models.simulated(f)] == ["nf4", "nf4-dq", "fp4", "fp4-dq", "int8"]


def test_bits_and_bytes(cfg):
    plain, nf4, int8 = (models.load(cfg, cfg.models[0], form) for form in ("none", "nf4", "int8"))
    assert models.bits(plain) == 32
    assert models.bits(nf4) == 4.5
    assert 8 < models.bits(int8) < 8.6, "a float32 for each row of 64 or 128"
    assert weight_bytes(nf4) < weight_bytes(int8) < weight_bytes(plain)


@pytest.mark.parametrize("form", ["nf4", "int8"])
def test_a_model_with_hooks_of_accelerate_is_quantized_all_the_same(form, cfg, monkeypatch):
    """They hold the stock `forward`, which would multiply int8 weights by inputs that aren't in int8.

    On a CPU alone accelerate would offload; so the hooks that it puts on for several devices are put on here.
    """
    hooks = pytest.importorskip("accelerate.hooks", reason="NOT VERIFIED HERE: needs accelerate")
    expected = logits(models.load(cfg, cfg.models[0], form))
    hooked = models.load(cfg, cfg.models[0])
    for module in hooked.modules():
        if not list(module.children()):
            hooks.add_hook_to_module(module, hooks.AlignDevicesHook("cpu", io_same_device=True))
    models.quantized(hooked, form)
    seen, usual = [], hooks.AlignDevicesHook.pre_forward
    monkeypatch.setattr(
        hooks.AlignDevicesHook, "pre_forward", lambda *g, **o: seen.append(type(g[1])) or usual(*g, **o)
    )
    assert torch.equal(logits(hooked), expected)
    assert sum(issubclass(kind, Quantized) for kind in seen) == 14, "7 linear layers in 2 blocks"
    assert models.for_generating(hooked, form) is hooked
    assert torch.equal(logits(hooked), expected)


def test_a_device_map_is_handed_on(cfg):
    pytest.importorskip("accelerate", reason="NOT VERIFIED HERE: needs accelerate")
    cfg.device_map = "auto"
    model = models.load(cfg, cfg.models[0], "nf4")
    assert logits(model).isfinite().all()


def test_what_does_not_fit_the_devices_is_refused(cfg, monkeypatch):
    from transformers import AutoModelForCausalLM

    model = models.load(cfg, cfg.models[0])
    model.hf_device_map = {"model.embed_tokens": 0, "model.layers": "disk"}
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", lambda *_, **__: model)
    cfg.device_map = "auto"
    with pytest.raises(StudyError, match=r"a part of .*tiny is on disk; it must fit the devices"):
        models.load(cfg, cfg.models[0])


def test_accelerate_is_asked_for(cfg, monkeypatch):
    cfg.device_map = "auto"
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(StudyError, match="pip install accelerate"):
        models.subjects(cfg)


def test_end_tokens(cfg):
    model = models.load(cfg, cfg.models[0])
    model.generation_config.eos_token_id = [5, 6]
    assert models.end_tokens(model) == [5, 6]
    model.generation_config.eos_token_id = None
    model.config.eos_token_id = 7
    assert models.end_tokens(model) == [7]
    model.config.eos_token_id = None
    assert models.end_tokens(model) == []


def test_subjects_have_windows_behind_bos_and_hashes(cfg, small):
    (subject,) = models.subjects(cfg)
    text = str(small / "text.txt")
    windows = subject.windows[text]
    assert windows.shape == (3, 16)
    assert len(set(windows[:, 0].tolist())) == 1
    assert torch.equal(subject.prompts(text), windows[:2, :4])
    assert subject.family == "llama"
    same, longer = subject.settings(text), subject.settings(text, 1)
    assert same != longer
    cfg.window = 15
    assert models.subjects(cfg)[0].settings(text) != same, "other token ids are other cells"
    cfg.window, cfg.dtype = 16, "bfloat16"
    assert models.subjects(cfg)[0].settings(text) != same
