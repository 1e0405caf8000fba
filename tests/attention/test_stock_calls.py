"""Calls that can't be computed by document: the stock code computes them, and a warning says why."""

import warnings

import pytest
import torch
from families import DECODERS, batch, build
from text_families import build as mixture
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertLMHeadModel,
    DynamicCache,
)

from cadenza.algorithms import (
    apply_alibi,
    apply_flash_attention,
    apply_sequence_packing,
    apply_sparse_prediction,
    apply_unpadding,
)
from cadenza.surgery import SurgeryError

TINY = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
IDS = torch.randint(3, 90, (2, 6), generator=torch.Generator().manual_seed(0))
HOLES = torch.tensor([[1, 1, 0, 1, 1, 1], [1, 0, 0, 1, 0, 1]])
MASK = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]])
LEFT = torch.tensor([[1, 1, 1, 1, 1, 1], [0, 0, 1, 1, 1, 1]])
LABELS = IDS.masked_fill(LEFT == 0, -100)
ANEW = torch.tensor([[0, 1, 2, 0, 1, 2]] * 2)
CALLS = {
    "padding between real tokens": {"attention_mask": HOLES},
    "nothing but padding": {"attention_mask": torch.zeros(2, 6, dtype=torch.long)},
    r"shape \(2, 1, 6, 6\)": {"attention_mask": torch.ones(2, 1, 6, 6).tril().bool()},
    "use_cache=True": {"use_cache": True},
    "position_ids start anew": {"position_ids": ANEW},
    "cu_seq_lens_q": {"cu_seq_lens_q": torch.tensor([0, 6, 12], dtype=torch.int32)},
    "labels are predicted from padding": {"attention_mask": LEFT, "labels": LABELS},
}
every_technique = pytest.mark.parametrize("apply", [apply_unpadding, apply_flash_attention])


@every_technique
@pytest.mark.parametrize("why", CALLS)
def test_a_decoder_computes_them_as_stock(apply, why):
    model, stock = build("llama"), build("llama")
    apply(model)
    with pytest.warns(UserWarning, match=f"the stock code computes this call, because .*{why}"):
        ours = model(IDS, **CALLS[why])
    theirs = stock(IDS, **CALLS[why])
    assert torch.equal(ours.logits, theirs.logits)
    assert ours.loss == theirs.loss
    assert (ours.past_key_values is None) == (theirs.past_key_values is None)


@every_technique
def test_labels_of_padding_are_learned_as_in_stock(apply):
    """A label on padding has a loss and gradients there."""
    config = BertConfig(vocab_size=90, num_labels=5, **TINY)
    models = [BertForTokenClassification(config).eval() for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    apply(models[0])
    mask, labels = torch.tensor([[1, 1, 1, 1, 0, 0]] * 2), IDS % 5
    with pytest.warns(UserWarning, match="labels are predicted from padding"):
        losses = [model(IDS, attention_mask=mask, labels=labels).loss for model in models]
    assert losses[0] == losses[1]
    for loss in losses:
        loss.backward()
    ours, theirs = ([p.grad for p in model.parameters()] for model in models)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_sparse_prediction_finds_labels_on_padding():
    model, stock = build("bert"), build("bert")
    apply_unpadding(model)
    apply_sparse_prediction(model)
    inputs = batch("bert")
    inputs["labels"][2, 12] = 5
    with pytest.warns(UserWarning, match="labels are predicted from padding"):
        ours = model(**inputs)
    theirs = stock(**inputs)
    assert (ours.logits[0] - theirs.logits[inputs["labels"] != -100]).abs().max() < 1e-5
    assert abs(ours.loss - theirs.loss) < 1e-6


@every_technique
@pytest.mark.parametrize("family", ["bert", "llama"])
def test_labels_of_real_tokens_are_computed_by_document(apply, family):
    """Without a warning; what padding computes, which nobody reads, isn't stock."""
    model, stock = build(family), build(family)
    apply(model)
    inputs = batch(family)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours = model(**inputs)
    theirs, padding = stock(**inputs), inputs["attention_mask"] == 0
    assert abs(ours.loss - theirs.loss) < 1e-5
    assert (ours.logits - theirs.logits)[padding].abs().max() > 1e-3


@every_technique
@pytest.mark.parametrize("family", DECODERS)
def test_generation_needs_no_undo(apply, family):
    model, stock = build(family), build(family)
    apply(model)
    padded = {"attention_mask": LEFT, "max_new_tokens": 5, "do_sample": False}
    with pytest.warns(UserWarning, match="because it passes"):
        ours = model.generate(IDS, **padded)
    assert torch.equal(ours, stock.generate(IDS, **padded))
    assert model(IDS).past_key_values is None, "unless it is asked for there is no cache"


def test_a_filled_cache_goes_on():
    model, stock = build("llama"), build("llama")
    apply_unpadding(model)
    outputs = []
    for each in (model, stock):
        cache = DynamicCache(config=each.config)
        each(IDS[:, :4], past_key_values=cache)
        outputs.append(each(IDS[:, 4:], past_key_values=cache).logits)
    assert torch.equal(*outputs)


@every_technique
@pytest.mark.parametrize("how", ["call", "config"])
def test_attention_weights(apply, how):
    options = {"attention": "eager", "output_attentions": how == "config"}
    model, stock = build("bert", **options), build("bert", **options)
    apply(model)
    asked = {"output_attentions": True} if how == "call" else {}
    with pytest.warns(UserWarning, match="because it asks for attention weights"):
        ours = model(IDS, attention_mask=LEFT, **asked).attentions
    theirs = stock(IDS, attention_mask=LEFT, **asked).attentions
    assert len(ours) == len(theirs) == 2
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@every_technique
def test_another_sequence(apply):
    config = BertConfig(vocab_size=90, is_decoder=True, add_cross_attention=True, **TINY)
    model = BertLMHeadModel(config).eval()
    given = {"attention_mask": LEFT, "encoder_hidden_states": torch.randn(2, 7, 16)}
    expected = model(IDS, **given).logits
    apply(model)
    with pytest.warns(UserWarning, match="because it passes encoder_hidden_states"):
        assert torch.equal(model(IDS, **given).logits, expected)


@pytest.mark.parametrize("why", CALLS)
def test_a_kernel_asked_for_by_name_refuses_them(why):
    model = build("llama")
    apply_flash_attention(model, "sdpa")
    with pytest.raises(SurgeryError, match=f"kernel 'sdpa' can't compute this call, because .*{why}"):
        model(IDS, **CALLS[why])


def test_documents_are_never_left_to_stock():
    model = build("llama")
    apply_sequence_packing(model)
    numbers = torch.tensor([[1, 1, 2, 2, 2, 2]] * 2)
    with pytest.raises(SurgeryError, match=r"document_ids: .* because it passes use_cache=True"):
        model(IDS, document_ids=numbers, use_cache=True)
    with pytest.raises(SurgeryError, match=r"document_ids: .* because it passes (past_key_values|cache)"):
        model(IDS, document_ids=numbers, past_key_values=DynamicCache(config=model.config))


@every_technique
def test_some_hidden_states(apply):
    """Transformers returns None for the layers that aren't asked for."""
    model, stock = build("bert"), build("bert")
    apply(model)
    ours, theirs = (
        m(IDS, attention_mask=LEFT, output_hidden_states=[0, 2]).hidden_states for m in (model, stock)
    )
    assert [h is None for h in ours] == [h is None for h in theirs]
    real = LEFT.bool()
    for a, b in zip(ours, theirs, strict=True):
        assert a is None or (a - b)[real].abs().max() < 1e-5


@every_technique
def test_a_traced_model_attends_by_the_mask_that_it_gets(apply):
    """The lengths of the example's documents would be constants of the graph."""

    class Logits(torch.nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, ids, mask):
            return self.model(input_ids=ids, attention_mask=mask).logits

    model, stock = build("bert"), build("bert")
    apply(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(Logits(model), (IDS, torch.ones_like(IDS)), check_trace=False)
    expected = stock(IDS, attention_mask=LEFT).logits
    assert (traced(IDS, LEFT) - expected)[LEFT.bool()].abs().max() < 1e-5


@every_technique
@pytest.mark.parametrize("name", ["mixtral", "qwen3_moe", "olmoe"])
def test_the_loss_of_a_router_is_that_of_stock(apply, name):
    """Its logits are those of real tokens; the stock loss leaves out the padding by the mask."""
    model, stock = (mixture(name, output_router_logits=True).train() for _ in range(2))
    apply(model)
    labels = IDS.masked_fill(MASK == 0, -100)
    ours, theirs = (m(IDS, attention_mask=MASK, labels=labels) for m in (model, stock))
    assert abs(ours.aux_loss - theirs.aux_loss) < 1e-5
    assert abs(ours.loss - theirs.loss) < 1e-5
    assert [x.shape for x in ours.router_logits] == [x.shape for x in theirs.router_logits]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_row_of_padding_alone_has_the_gradients_of_stock_attention(attention):
    """Bias and mask are one term; what a row that sees nothing computes must reach no other row."""
    inputs = batch("bert", padding=None)
    inputs["attention_mask"][1] = 0
    inputs["labels"][1] = -100
    gradients = []
    for rows in (slice(None), [0, 2]):
        model = build("bert", attention=attention)
        apply_alibi(model)
        model(**{name: tensor[rows] for name, tensor in inputs.items()}).loss.backward()
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    for name, gradient in gradients[0].items():
        assert torch.allclose(gradient, gradients[1][name], atol=1e-6), name


@every_technique
def test_what_a_batch_holds_besides_is_passed_along_as_in_stock(apply):
    """Models hand on any keyword argument, and no attention function reads it."""
    model, stock = build("bert"), build("bert")
    apply(model)
    ours, theirs = (m(IDS, attention_mask=LEFT, draw=torch.ones(2)).logits for m in (model, stock))
    assert (ours - theirs)[LEFT.bool()].abs().max() < 1e-5


@every_technique
@pytest.mark.parametrize("width", [3, 6])
def test_labels_of_rows_are_no_labels_of_tokens(apply, width):
    """Several labels a row, as many as tokens in one case."""
    config = BertConfig(vocab_size=90, num_labels=width, problem_type="multi_label_classification", **TINY)
    models = [BertForSequenceClassification(config).eval() for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    apply(models[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours, theirs = (m(IDS, attention_mask=MASK, labels=torch.ones(2, width)).loss for m in models)
    assert abs(ours - theirs) < 1e-6


@every_technique
def test_what_attention_reads_is_stocks_whoever_passes_it(apply):
    """Transformers' own attention function reads `is_causal`; the mask of a padded row doesn't."""
    model, stock = build("llama"), build("llama")
    apply(model)
    for given in ({"is_causal": False}, {"is_causal": False, "attention_mask": MASK}):
        with pytest.warns(UserWarning, match="because it passes is_causal"):
            ours = model(IDS, **given).logits
        assert torch.equal(ours, stock(IDS, **given).logits)


@every_technique
def test_a_loss_that_takes_no_further_arguments(apply):
    model = build("llama")
    apply(model)
    model.loss_function = lambda logits, labels, vocab_size: logits[labels != -100].square().mean()
    labels = IDS.masked_fill(MASK == 0, -100)
    assert model(IDS, attention_mask=MASK, labels=labels).loss.isfinite()
