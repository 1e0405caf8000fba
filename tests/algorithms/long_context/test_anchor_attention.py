"""AnchorAttention against stock models under a dense mask, in every mode; and what it must not disturb."""

import itertools

import pytest
import torch
from dense_anchor import (
    LENGTHS,
    MODES,
    difference,
    every_length,
    every_mode,
    ids_of,
    language_model,
    loss_and_gradients,
    tokens,
    trial,
)
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


@pytest.mark.slow
@every_length
@every_mode
def test_equals_the_dense_mask_in_float64(lengths, mode, reset):
    error, effect, hides = trial(language_model(), lengths, mode, reset)
    assert error <= 1e-10
    assert (effect > 1e-8) == hides, "the mask that it is compared to changes nothing"


@pytest.mark.parametrize("family", ["llama", "qwen3", "mistral", "gpt2"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_families_equal_the_dense_mask(family, attention):
    model = language_model(family, attention=attention)
    error, effect, _ = trial(model, LENGTHS["batch of three"], "anchor", False)
    tolerance = 1e-10 if attention == "sdpa" else 1e-6  # stock eager attention has its softmax in float32
    assert error <= tolerance
    assert effect > 100 * tolerance


@every_mode
@pytest.mark.parametrize("lengths", [LENGTHS["odd"], LENGTHS["batch of three"]])
def test_equals_the_dense_mask_in_float32(lengths, mode, reset):
    error, effect, hides = trial(language_model(dtype=torch.float32), lengths, mode, reset)
    assert error <= 1e-5
    assert (effect > 1e-3) == hides


@every_mode
def test_unpadded_and_with_exact_rope(mode, reset):
    def apply(model):
        apply_unpadding(model)
        apply_bf16_safe_rope(model)

    assert trial(language_model(), LENGTHS["batch of three"], mode, reset, apply).error <= 1e-6


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
    assert difference(own[~is_copy], one) <= 1e-10


@pytest.mark.parametrize(("mode", "reset"), MODES[1:])
@pytest.mark.parametrize("kernel", ["sdpa", "auto"])
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
    assert difference(model(input_ids=text, document_ids=ids).logits, plain) <= 1e-10


@pytest.mark.slow
@pytest.mark.parametrize("kernel", [None, "sdpa"])
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
    again = loss_and_gradients(model, real, input_ids=text, document_ids=ids)
    assert difference(again, whole) <= 1e-12
    model.gradient_checkpointing_disable()
    together = wrapped(batch).logits
    for part in ([0], [1, 2], [3]):
        alone = wrapped({name: value[part] for name, value in batch.items()}).logits
        assert difference(alone[real[part]], together[part][real[part]]) <= 1e-12


@pytest.mark.slow
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
        ([[0, 1, -2]], "must be 0 .anchor., 1, 2"),
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
    with pytest.raises(SurgeryError, match="mode is 'anker'; it must be anchor, intra_document or full"):
        AnchorAttention("anker")
    with pytest.raises(SurgeryError, match="mode 'full' sees across"):
        AnchorAttention("full", reset_positions=True)
    with pytest.raises(SurgeryError, match="is not causal; anchor_attention is for"):
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
    assert difference(model(**inputs).logits, plain(**inputs).logits) <= 1e-6


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
