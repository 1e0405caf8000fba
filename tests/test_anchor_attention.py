"""AnchorAttention against a dense mask, in every mode and kernel; and what it must not disturb."""

import itertools

import pytest
import torch
from families import build

from cadenza.algorithms import (
    AnchorAttention,
    apply_alibi,
    apply_anchor_attention,
    apply_bf16_safe_rope,
    apply_flash_attention,
    apply_sequence_packing,
    apply_unpadding,
)
from cadenza.models import composer_model
from cadenza.surgery import Conflict, SurgeryError
from cadenza.surgery import kernels as table
from cadenza.surgery.anchor import Anchor
from cadenza.surgery.documents import Documents
from cadenza.surgery.varlen import Varlen, live_blocks

MODES = [
    ("full", False),
    ("intra_document", False),
    ("intra_document", True),
    ("anchor", False),
    ("anchor", True),
]
LENGTHS = {
    "ones": [[1, 1, 1]],
    "twos": [[2, 2, 1, 2]],
    "odd": [[7, 3, 5]],
    "one long": [[61]],
    "200 short": [[1 + i % 3 for i in range(200)]],
    "batch of three": [[5, 2, 9], [1, 1, 20, 3], [17]],
}
every_length = pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS.keys())
every_mode = pytest.mark.parametrize(("mode", "reset"), MODES)


def ids_of(lengths):
    """(rows, longest) document ids with the anchor in front and padding behind."""
    rows = [torch.tensor([0, *(n for n, size in enumerate(row, 1) for _ in range(size))]) for row in lengths]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1)


def dense_mask(ids, mode):
    """(rows, 1, length, length), True where a query sees a key; padding sees itself, so that none is NaN."""
    q, k = ids[:, :, None], ids[:, None, :]
    at = torch.arange(ids.shape[1])
    seen = {"full": torch.ones_like(q == k), "intra_document": q == k, "anchor": (q == k) | (k == 0)}[mode]
    seen = seen & (k != -1) & (q != -1)
    return ((seen & (at[:, None] >= at)) | (at[:, None] == at))[:, None]


def positions(ids, mode, reset):
    running = torch.arange(ids.shape[1]).expand(ids.shape)
    if not reset:
        return running
    starts = torch.ones_like(ids, dtype=torch.bool)
    starts[:, 1:] = ids.diff() != 0
    start = torch.where(starts, running, 0).cummax(1).values
    return running - start + ((ids > 0) & (mode == "anchor"))


def tokens(ids, seed=0):
    drawn = torch.randint(3, 90, ids.shape, generator=torch.Generator().manual_seed(seed))
    return torch.where(ids == 0, 1, drawn).masked_fill(ids == -1, 0)


def language_model(family="llama", dtype=torch.float64, **options):
    sizes = {"n_positions": 512} if family == "gpt2" else {"max_position_embeddings": 512}
    if family == "mistral":
        sizes["sliding_window"] = None
    return build(family, **sizes, **options).to(dtype)


def loss_and_gradients(model, real, **inputs):
    logits = model(**inputs).logits[real]
    weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(1)).to(logits)
    model.zero_grad()
    (logits * weights).sum().backward()
    return logits.detach(), [p.grad.clone() for p in model.parameters() if p.grad is not None]


def agree(ours, theirs, tolerance):
    close(ours[0], theirs[0], tolerance)
    for a, b in zip(ours[1], theirs[1], strict=True):
        close(a, b, tolerance)


def close(a, b, tolerance):
    assert (a - b).abs().max() <= tolerance * b.abs().max().clamp(min=1)


def compare(model, apply, lengths, mode, reset, tolerance):
    ids = ids_of(lengths)
    inputs, real = tokens(ids), ids != -1
    where = positions(ids, mode, reset).masked_fill(~real, 0)
    seen = dense_mask(ids, mode)
    # Added to the scores: stock eager attention adds a boolean one as it is.
    mask = torch.zeros_like(seen, dtype=model.dtype).masked_fill(~seen, -torch.inf)
    stock = loss_and_gradients(model, real, input_ids=inputs, attention_mask=mask, position_ids=where)
    apply_anchor_attention(model, mode, reset)
    apply(model)
    agree(loss_and_gradients(model, real, input_ids=inputs, document_ids=ids), stock, tolerance)


@every_length
@every_mode
def test_equals_the_dense_mask_in_float64(lengths, mode, reset):
    compare(language_model(), lambda model: None, lengths, mode, reset, 1e-10)


@pytest.mark.parametrize("family", ["llama", "qwen3", "mistral", "gpt2"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_families_equal_the_dense_mask(family, attention):
    model = language_model(family, attention=attention)
    tolerance = 1e-10 if attention == "sdpa" else 1e-6  # stock eager attention has its softmax in float32
    compare(model, lambda model: None, LENGTHS["batch of three"], "anchor", False, tolerance)


@every_mode
@pytest.mark.parametrize("lengths", [LENGTHS["odd"], LENGTHS["batch of three"]])
def test_equals_the_dense_mask_in_float32(lengths, mode, reset):
    compare(language_model(dtype=torch.float32), lambda model: None, lengths, mode, reset, 1e-5)


@every_length
@every_mode
def test_the_merged_kernel_equals_the_dense_mask(lengths, mode, reset):
    model = language_model()
    compare(model, lambda model: apply_flash_attention(model, "merged"), lengths, mode, reset, 1e-10)


@every_mode
def test_unpadded_and_with_exact_rope(mode, reset):
    model = language_model()
    lengths = LENGTHS["batch of three"]
    compare(model, lambda m: (apply_unpadding(m), apply_bf16_safe_rope(m)), lengths, mode, reset, 1e-6)


def dense(query, key, value, ids):
    """Softmax attention under the anchor's mask, (total, heads, head_dim); one row of ids."""
    group = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(group, dim=1) for x in (key, value))
    scores = torch.einsum("qhd,khd->hqk", query, key) * query.shape[-1] ** -0.5
    scores = scores.masked_fill(~dense_mask(ids, "anchor")[0, 0], -torch.inf)
    return torch.einsum("hqk,khd->qhd", scores.softmax(-1), value)


class Attention(torch.nn.Module):
    """As much of an attention module as a kernel looks at."""

    is_causal, training = True, False

    def __init__(self, groups):
        super().__init__()
        self.num_key_value_groups = groups
        self.attention_plan = type("Plan", (), {"stock": "sdpa"})()


def on_cuda(name):
    return pytest.param(name, "cuda", torch.bfloat16, 2e-2, marks=pytest.mark.gpu)


KERNELS = [
    pytest.param("sdpa", "cpu", torch.float64, 1e-10),
    pytest.param("merged", "cpu", torch.float64, 1e-10),
    pytest.param("sdpa", "cpu", torch.float32, 1e-5),
    pytest.param("merged", "cpu", torch.float32, 1e-5),
    # bfloat16 rounds by 2^-8 at each of a few places.
    pytest.param("sdpa", "cpu", torch.bfloat16, 2e-2),
    pytest.param("merged", "cpu", torch.bfloat16, 2e-2),
    *(on_cuda(name) for name in ("sdpa", "merged", "flash", "flex")),
]


@pytest.mark.parametrize(("name", "device", "dtype", "tolerance"), KERNELS)
@pytest.mark.parametrize("heads", [(4, 4), (6, 2), (4, 1)])
@pytest.mark.parametrize("lengths", [LENGTHS["odd"], LENGTHS["200 short"], [[130, 1, 257, 60]]])
def test_kernels_equal_the_dense_mask(name, device, dtype, tolerance, heads, lengths):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs CUDA")
    if missing := table.KERNELS[name].missing():
        pytest.skip(f"needs {missing}")
    ids = ids_of(lengths)
    generator = torch.Generator().manual_seed(0)
    shapes = [(ids.shape[1], n, 32) for n in (heads[0], heads[1], heads[1], heads[0])]
    drawn = [torch.randn(shape, generator=generator).to(device, dtype) for shape in shapes]
    ours = [x.clone().requires_grad_() for x in drawn[:3]]
    exact = [x.double().cpu().requires_grad_() for x in drawn[:3]]
    call = Varlen.of(Attention(heads[0] // heads[1]), None, Anchor().documents(ids, torch.device(device)), {})
    output = table.run(name, call, *(x[None] for x in ours))
    output[0].backward(drawn[3])
    reference = dense(*exact, ids)
    reference.backward(drawn[3].double().cpu())
    close(output[0].detach().double().cpu(), reference.detach(), tolerance)
    for a, b in zip(ours, exact, strict=True):
        close(a.grad.double().cpu(), b.grad, tolerance)


@pytest.mark.skipif(torch.__version__ >= "2.8", reason="FlexAttention has no CPU backward from torch 2.8 on")
def test_flex_sees_what_the_dense_mask_does():
    from cadenza.surgery import varlen

    ids = ids_of([[100, 3, 90], [260], [1, 1]])
    documents = Anchor().documents(ids, torch.device("cpu"))
    rows = torch.arange(len(ids))[:, None].expand(ids.shape)[ids != -1]
    flat = ids[ids != -1]
    at = torch.arange(len(flat))
    seen = (rows[:, None] == rows) & ((flat[:, None] == flat) | (flat == 0)) & (at[:, None] >= at)
    call = Varlen.of(Attention(1), None, documents, {})
    block = varlen._block_mask(call)
    ours = torch.stack([block.mask_mod(0, 0, at[q], at) for q in range(len(at))])
    assert torch.equal(ours, seen)
    padded = torch.nn.functional.pad(seen, (0, -len(at) % 128, 0, -len(at) % 128))
    needed = padded.unflatten(0, (-1, 128)).unflatten(2, (-1, 128)).any(3).any(1)
    assert torch.equal(live_blocks(call), needed)


def test_one_varlen_call_gets_each_document_its_anchor():
    documents = Anchor().documents(ids_of([[2, 3], [1]]), torch.device("cpu"))
    assert documents.lengths == (1, 2, 3, 1, 1)
    assert documents.anchored_keys.tolist() == [0, 0, 1, 2, 0, 3, 4, 5, 6, 6, 7]
    assert documents.anchored_cu_seqlens.tolist() == [0, 1, 4, 8, 9, 11]


def test_the_closed_form_passes_gradcheck():
    from cadenza.surgery.merged import merged

    documents = Anchor().documents(ids_of([[3, 2], [4]]), torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    qkv = [
        torch.randn(1, documents.total, heads, 4, dtype=torch.float64, generator=generator)
        for heads in (2, 1, 1)
    ]
    call = Varlen.of(Attention(2), None, documents, {})
    assert torch.autograd.gradcheck(lambda *qkv: merged(call, *qkv), [x.requires_grad_() for x in qkv])


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_a_copy_per_document_is_the_shared_anchor(family):
    """The reference's two layouts: every document with its own BOS at position 0, or one BOS for all."""
    lengths = [5, 1, 9, 4]
    shared = ids_of([lengths])
    text = tokens(shared)
    model = language_model(family)
    apply_anchor_attention(model)
    one = model(input_ids=text, document_ids=shared).logits[0, 1:]
    body = text[0, 1:].split(lengths)
    copied = torch.cat([torch.cat([text[0, :1], part]) for part in body])[None]
    ids = torch.arange(1, 5).repeat_interleave(torch.tensor(lengths) + 1)[None]
    place = torch.cat([torch.cat([torch.zeros(1), p]) for p in torch.arange(1, 20).split(lengths)])[
        None
    ].long()
    model = language_model(family)
    apply_anchor_attention(model, "intra_document")
    own = model(input_ids=copied, document_ids=ids, position_ids=place).logits[0]
    is_copy = torch.cat([torch.arange(n + 1) == 0 for n in lengths])
    close(own[~is_copy], one, 1e-10)


@pytest.mark.parametrize(("mode", "reset"), MODES[1:])
@pytest.mark.parametrize("kernel", ["sdpa", "merged"])
def test_documents_are_isolated(mode, reset, kernel):
    ids = ids_of([[6, 3, 8], [2, 9]])
    text, real = tokens(ids), ids != -1
    model = language_model()
    apply_anchor_attention(model, mode, reset)
    apply_flash_attention(model, kernel)
    before = model(input_ids=text, document_ids=ids, attention_mask=real.long()).logits
    for row, number in itertools.product(range(2), (1, 2, 3)):
        inside = torch.zeros_like(real)
        inside[row] = ids[row] == number
        changed = torch.where(inside, (text + 7) % 80 + 3, text)
        after = model(input_ids=changed, document_ids=ids, attention_mask=real.long()).logits
        assert torch.equal(before[real & ~inside], after[real & ~inside])
        if inside.any():
            assert not torch.equal(before[inside], after[inside])


def test_full_attention_sees_across():
    ids = ids_of([[6, 3, 8]])
    text = tokens(ids)
    model = language_model()
    apply_anchor_attention(model, "full")
    plain = language_model()(input_ids=text).logits
    close(model(input_ids=text, document_ids=ids).logits, plain, 1e-10)


@pytest.mark.parametrize("kernel", [None, "sdpa", "merged"])
def test_boundaries_survive_checkpointing_caches_and_micro_batches(kernel):
    ids = ids_of([[5, 2, 9], [1, 1, 11, 3], [16], [8, 8]])
    text, real = tokens(ids), ids != -1
    model = language_model().train()
    assert model.config.use_cache  # the default
    apply_anchor_attention(model)
    if kernel:
        apply_flash_attention(model, kernel)
    labels = text.masked_fill(~real, -100)
    wrapped = composer_model(model)
    batch = {"input_ids": text, "document_ids": ids, "labels": labels, "attention_mask": real.long()}
    whole = loss_and_gradients(model, real, input_ids=text, document_ids=ids)
    model.gradient_checkpointing_enable()
    agree(loss_and_gradients(model, real, input_ids=text, document_ids=ids), whole, 1e-12)
    model.gradient_checkpointing_disable()
    together = wrapped(batch).logits
    for part in ([0], [1, 2], [3]):
        alone = wrapped({name: value[part] for name, value in batch.items()}).logits
        close(alone[real[part]], together[part][real[part]], 1e-12)


def test_composer_s_wrapper_passes_document_ids_on():
    ids = ids_of([[5, 2], [3, 4]])
    text = tokens(ids)
    wrapped = composer_model(language_model())
    apply_anchor_attention(wrapped)
    bare = language_model()
    apply_anchor_attention(bare)
    ours = wrapped({"input_ids": text, "document_ids": ids}).logits
    assert torch.equal(ours, bare(input_ids=text, document_ids=ids).logits)


def test_inference_stays_stock():
    model, stock = language_model(), language_model()
    apply_anchor_attention(model)
    text = tokens(ids_of([[9]]))
    assert torch.equal(model(input_ids=text).logits, stock(input_ids=text).logits)
    options = {"max_new_tokens": 5, "do_sample": False}
    assert torch.equal(model.generate(text, **options), stock.generate(text, **options))


def test_training_without_document_ids_is_said():
    model = language_model().train()
    apply_anchor_attention(model)
    with pytest.warns(UserWarning, match="no document_ids"):
        model(input_ids=tokens(ids_of([[4]])))


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        ([[1, 1, 2]], "row 0 starts with 1; its first token must be the anchor"),
        ([[0, 1, 1], [0, 1, 0]], "row 1 has its anchor .* outside of column 0"),
        ([[0, 1, -2]], "must be 0 for the anchor, 1, 2"),
        ([[0, 1, 2, 1]], "interrupted"),
        ([[0, 1, -1, 1]], "interrupted"),
    ],
)
def test_bad_ids_are_refused(ids, said):
    model = language_model()
    apply_anchor_attention(model)
    ids = torch.tensor(ids)
    with pytest.raises(SurgeryError, match=said):
        model(input_ids=ids.abs() + 3, document_ids=ids)


def test_what_does_not_go_together_is_refused():
    with pytest.raises(SurgeryError, match="mode 'anker' is not one of"):
        AnchorAttention("anker")
    with pytest.raises(SurgeryError, match="full attention sees across"):
        AnchorAttention("full", reset_positions=True)
    with pytest.raises(SurgeryError, match="sees later tokens"):
        apply_anchor_attention(build("bert"))
    with pytest.raises(SurgeryError, match="sliding window of 16"):
        apply_anchor_attention(build("mistral"))
    for other in (apply_alibi, apply_sequence_packing):
        for first, second in itertools.permutations([apply_anchor_attention, other]):
            model = language_model()
            first(model)
            with pytest.raises(Conflict):
                second(model)


def test_positions_by_document_need_reset():
    ids = ids_of([[4, 5]])
    model = language_model()
    apply_anchor_attention(model)
    apply_bf16_safe_rope(model, per_document=True)
    with pytest.raises(SurgeryError, match="loses the distance to the anchor"):
        model(input_ids=tokens(ids), document_ids=ids)
    model, plain = language_model(), language_model()
    for each in (model, plain):
        apply_anchor_attention(each, reset_positions=True)
    apply_bf16_safe_rope(model, per_document=True)
    inputs = {"input_ids": tokens(ids), "document_ids": ids}
    close(model(**inputs).logits, plain(**inputs).logits, 1e-6)


def test_documents_without_anchor_keep_none():
    assert Documents((2, 3), torch.device("cpu")).anchors == ()


@pytest.mark.parametrize("apply", [apply_flash_attention, apply_anchor_attention])
def test_shared_heads_never_reach_a_kernel_that_materializes_the_scores(apply, monkeypatch):
    """On a CPU torch 2.7 does where it is told of groups: attention then takes quadratic memory."""
    shapes, sdpa = [], torch.nn.functional.scaled_dot_product_attention

    def seen(query, key, *args, **kwargs):
        shapes.append((query.shape[1], key.shape[1], kwargs.get("enable_gqa", False)))
        return sdpa(query, key, *args, **kwargs)

    monkeypatch.setattr("torch.nn.functional.scaled_dot_product_attention", seen)
    model, ids = language_model(), ids_of([[5, 3]])
    apply(model)
    inputs = {"document_ids": ids} if apply is apply_anchor_attention else {}
    model(input_ids=tokens(ids), **inputs)
    assert set(shapes) == {(4, 4, False)}
