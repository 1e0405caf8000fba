"""The table of kernels: what it says, what a call asks of it, and which one is chosen."""

import importlib.util
import inspect
import types
from contextlib import nullcontext

import pytest
import torch
from attention_calls import CPU, call_of
from families import build

from cadenza.algorithms import FlashAttention, apply_flash_attention
from cadenza.algorithms.alibi import AlibiBias
from cadenza.attention import AttentionPlan
from cadenza.attention.call import AttentionCall
from cadenza.attention.documents import Documents
from cadenza.attention.kernels import flash, flex, sdpa, triton, varlen
from cadenza.attention.kernels import table as kernels
from cadenza.attention.kernels.table import KERNELS, Kernel, Needs, choose, chosen, features, lacks, table
from cadenza.surgery import SurgeryError

EVERY = "float32,bfloat16,float16,float64"
SAID = """\
kernel  cpu  cuda  head_dim  alibi  window  causal  dropout  anchor  softcap  sinks  value_dim  varlen
flash  no  bfloat16,float16  1..256  yes  yes  yes  yes  yes  no  no  no  yes
varlen  no  bfloat16,float16  8..256, every 8th  no  yes  yes  yes  yes  no  no  no  yes
triton  no  bfloat16,float16  16..128  yes  yes  yes  no  no  no  no  no  yes
flex  no  float32,bfloat16,float16  16..256  yes  yes  yes  no  yes  no  no  yes  yes
fa4  no  bfloat16,float16  16..256  yes  yes  yes  no  yes  no  no  no  yes
sdpa  EVERY  EVERY  1..65535  yes  yes  yes  yes  yes  yes  yes  yes  yes""".replace("EVERY", EVERY)


@pytest.fixture
def all_there(monkeypatch):
    """Every kernel's packages are installed."""
    monkeypatch.setattr(Kernel, "missing", lambda self: None)


def cells(text):
    return [[cell for cell in line.split("  ") if cell] for line in text.splitlines()]


def test_what_each_can():
    rows = [[cell.strip() for cell in row[:1] + row[2:]] for row in cells(table())]
    assert rows == cells(SAID)


def test_columns_stand_below_each_other():
    lines = table().splitlines()
    starts = {line.rfind("yes") for line in lines[1:]}
    assert starts == {lines[0].index("varlen")}
    assert not any(line.endswith(" ") for line in lines)


@pytest.mark.parametrize("cuda", [False, True])
def test_where_each_runs(cuda, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(Kernel, "missing", lambda self: self.module)
    here = {row[0].strip(): row[1].strip() for row in cells(table())[1:]}
    assert here == {
        "flash": "needs flash_attn",
        "flex": "yes" if cuda else "needs CUDA",
        "fa4": "needs flash_attn.cute",
        "sdpa": "yes",
        "triton": "needs triton",
        "varlen": "yes" if cuda else "needs CUDA",
    }


def test_what_computes_each():
    runs = {name: kernel.run for name, kernel in KERNELS.items()}
    assert runs["flash"] is flash.flash
    assert runs["flex"] is flex.flex
    assert runs["fa4"] is flex.fa4
    assert inspect.unwrap(runs["sdpa"]) is sdpa.stock
    assert runs["varlen"] is varlen.varlen
    assert runs["triton"] is triton.triton
    assert {name: kernel.torch for name, kernel in KERNELS.items()} == {
        **dict.fromkeys(KERNELS, (2, 5)),
        "fa4": (2, 11),
    }


def test_what_must_be_installed(monkeypatch):
    def needs(**options):
        return Kernel(sdpa.stock, print, {}, **options).missing()

    monkeypatch.setattr(torch, "__version__", "2.10.1+cpu")
    assert needs(torch=(2, 10)) is None
    assert needs(torch=(2, 9)) is None
    assert needs(torch=(2, 11)) == "torch>=2.11"
    assert needs(torch=(3, 0)) == "torch>=3.0"
    assert needs(module="json.decoder") is None
    assert needs(module="no_such_package") == "no_such_package"
    assert needs(module="no_such_package.part") == "no_such_package.part"
    assert needs(module="json.no_such_part") == "json.no_such_part"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: pytest.fail("nothing to look for"))
    assert needs() is None


def test_needs_of_a_call():
    bare = Needs.of(call_of((3,)), *[torch.zeros(1, 3, 2, 24)] * 2)
    assert bare == Needs("cpu", "float32", 24, False, False, False, False, False)
    documents = Documents((1, 2), torch.device("cpu"), anchors=(0, 0))
    call = call_of(documents=documents, alibi=True, causal=True, window=0, dropout=0.01)
    full = Needs.of(
        call, torch.zeros(1, 3, 2, 8, dtype=torch.bfloat16, device="meta"), torch.zeros(1, 3, 2, 4)
    )
    assert full == Needs("meta", "bfloat16", 8, True, True, True, True, True, value_dim=True)
    assert str(full) == "meta, bfloat16, head_dim 8, alibi, window, causal, dropout, anchor, value_dim"
    assert str(bare) == "cpu, float32, head_dim 24"
    assert Needs("cpu", "float32") == Needs("cpu", "float32", 64, False, False, False, False, False)


def test_head_dims_at_their_ends(all_there):
    for name, first, last in (
        ("flash", 1, 256),
        ("flex", 16, 256),
        ("varlen", 8, 256),
        ("triton", 16, 128),
        ("sdpa", 1, 65535),
    ):
        for head_dim in (first, last):
            assert lacks(name, Needs("cuda", "bfloat16", head_dim)) is None
        for head_dim in (first - 1, last + 1):
            assert lacks(name, Needs("cuda", "bfloat16", head_dim)) == f"no head_dim {head_dim}"


@pytest.mark.parametrize("feature", ["alibi", "window", "causal", "dropout", "anchor"])
def test_what_is_asked_must_be_there(feature, all_there):
    without = {
        "flash": "",
        "flex": "dropout",
        "fa4": "dropout",
        "varlen": "alibi",
        "triton": "dropout anchor",
        "sdpa": "",
    }
    for name, lacking in without.items():
        why = lacks(name, Needs("cuda", "bfloat16", **{feature: True}))
        assert why == (f"no {feature}" if feature in lacking else None)


def test_value_heads_of_another_size(all_there):
    """As in DeepSeek-V3: `triton` would read beyond them."""
    asked = Needs("cuda", "bfloat16", alibi=True, value_dim=True)
    assert choose.__wrapped__("auto", asked) == "flex"
    assert lacks("triton", asked) == "no value_dim"
    assert choose.__wrapped__("auto", asked._replace(alibi=False)) == "flex"
    assert own_call((3, 4), "cuda", value_dim=True) == "sdpa"


def test_a_device_that_is_too_old_takes_another_kernel(all_there, monkeypatch):
    monkeypatch.setattr(kernels, "_capability", lambda: (7, 5))
    asked = Needs("cuda", "float16", alibi=True)
    assert lacks("triton", asked) == "no compute capability below 8.0"
    monkeypatch.setitem(KERNELS, "flash", KERNELS["varlen"])
    assert choose.__wrapped__("auto", asked) == "flex"


def test_what_is_missing_is_said(monkeypatch):
    monkeypatch.setattr(Kernel, "missing", lambda self: "torch>=99.0")
    assert lacks("sdpa", Needs("cpu", "float32")) == "needs torch>=99.0"


def test_auto_takes_the_first_that_can(all_there):
    auto = choose.__wrapped__
    assert auto("auto", Needs("cuda", "bfloat16")) == "flash"
    assert auto("auto", Needs("cuda", "float32")) == "flex"
    assert auto("auto", Needs("cuda", "float32", dropout=True)) == "sdpa"
    assert auto("auto", Needs("cpu", "bfloat16", anchor=True)) == "sdpa"
    assert auto("fa4", Needs("cuda", "bfloat16")) == "fa4"
    assert auto("varlen", Needs("cuda", "bfloat16", anchor=True)) == "varlen"


def test_auto_never_takes_what_has_to_be_asked_for(all_there, monkeypatch):
    monkeypatch.setattr(kernels, "KERNELS", {name: KERNELS[name] for name in ("fa4",)})
    with pytest.raises(SurgeryError, match="kernel 'auto' can't do cuda, bfloat16, head_dim 64: use fa4 "):
        choose.__wrapped__("auto", Needs("cuda", "bfloat16"))


def test_others_are_named_with_their_reasons(all_there):
    with pytest.raises(SurgeryError) as raised:
        choose.__wrapped__("flash", Needs("cuda", "float32", dropout=True))
    said = (
        "use sdpa (flash: no float32 on cuda; varlen: no float32 on cuda; triton: no float32 on cuda; "
        "flex: no dropout; fa4: no float32"
    )
    assert said in str(raised.value)
    assert "sdpa:" not in str(raised.value)


def own_call(lengths, device, stock="sdpa", bias=None, value_dim=False):
    call = AttentionCall(None, bias, Documents(lengths, CPU), False, None, 0.0, None)
    object.__setattr__(call, "module", types.SimpleNamespace(attention_plan=AttentionPlan(stock)))
    return chosen(None, call, Needs(device, "bfloat16", **features(call), value_dim=value_dim))


def test_no_name_is_the_model_s_own_kernel(all_there):
    assert own_call((3, 4), "cpu") == "sdpa"
    assert own_call((4, 4), "cuda") == "sdpa", "one call does"
    assert own_call((3, 4), "cuda", "eager") == "sdpa"
    assert own_call((3, 4), "cuda", bias=AlibiBias()) == "sdpa"
    assert own_call((3, 4), "cuda") == "varlen", "SDPA's own flash kernel"


@pytest.mark.parametrize(("longest", "kernel"), [(20, None), (18, None), (20, "sdpa")])
def test_many_calls_are_said(longest, kernel, monkeypatch):
    said = []
    monkeypatch.setattr(sdpa, "_warn_of_many_calls", lambda: said.append("often"))
    monkeypatch.setattr(sdpa, "_by_runs", lambda *args: None)
    monkeypatch.setattr(sdpa, "_without_plans", lambda query: nullcontext())
    call = call_of(tuple(range(1, longest // 2)))
    plan = types.SimpleNamespace(attention_plan=AttentionPlan("sdpa", kernel=kernel))
    object.__setattr__(call, "module", plan)
    sdpa.stock(call, types.SimpleNamespace(is_cuda=True), None, None)
    assert said == (["often"] if longest == 20 and kernel is None else [])


def test_auto_is_the_default():
    assert FlashAttention().kernel == "auto"
    assert repr(FlashAttention()) == "FlashAttention(kernel='auto')"
    model = build("llama")
    apply_flash_attention(model)
    assert model.model.batch_plan.kernel == "auto"
    assert AlibiBias() == AlibiBias(), "as a key of what is kept for a batch"


def test_a_package_that_is_missing_is_said_before_anything_changes(monkeypatch):
    monkeypatch.setattr(Kernel, "missing", lambda self: self.module)
    model = build("llama")
    with pytest.raises(SurgeryError, match=r"'fa4' needs flash_attn\.cute, which isn't installed"):
        apply_flash_attention(model, "fa4")
    assert model.config._attn_implementation == "sdpa"
    apply_flash_attention(model, "auto").undo()
    apply_flash_attention(model, "varlen")
    with pytest.raises(
        SurgeryError, match="'none'; it must be auto, flash, varlen, triton, flex, fa4 or sdpa"
    ):
        FlashAttention("none")
