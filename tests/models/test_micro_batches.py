"""A batch in micro-batches, some without a label: the mean over the labels of the whole batch."""

import copy
import warnings

import pytest
import torch
from composer import Trainer
from composer.core import DataSpec
from families import batch, build
from torch.utils.data import DataLoader

from cadenza.algorithms import SparsePrediction
from cadenza.data.text.loader import count_tokens
from cadenza.models import composer_model

STILL = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def unlabelled_rows(family):
    """Four rows, the first without a label. First tokens have none: a causal LM predicts none of them."""
    inputs = batch(family, rows=4, padding=None)
    inputs["labels"][0], inputs["labels"][:, 0] = -100, -100
    return inputs


def trained(model, inputs, algorithms=()):
    """The model after a step of one batch in micro-batches of one row, and the loss that Composer logs."""
    data = DataSpec(DataLoader([inputs], batch_size=None), get_num_tokens_in_batch=count_tokens)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = Trainer(
            model=composer_model(model.train()),
            train_dataloader=data,
            optimizers=torch.optim.SGD(model.parameters(), 0.5),
            algorithms=list(algorithms),
            max_duration="1ba",
            device_train_microbatch_size=1,
            accumulate_train_batch_on_tokens=True,
            progress_bar=False,
        )
        trainer.fit()
    return model, float(trainer.state.total_loss_dict["loss/train/total"])


@pytest.mark.parametrize(
    ("family", "algorithms"), [("bert", ()), ("bert", (SparsePrediction,)), ("modernbert", ()), ("llama", ())]
)
def test_a_micro_batch_without_a_label_weighs_nothing(family, algorithms):
    inputs = unlabelled_rows(family)
    stock = build(family, **(STILL if family == "bert" else {})).train()
    ours, logged = trained(copy.deepcopy(stock), inputs, [each() for each in algorithms])
    expected = stock(**inputs).loss
    expected.backward()
    torch.optim.SGD(stock.parameters(), 0.5).step()
    assert abs(logged - expected) < 1e-5
    for mine, theirs in zip(ours.parameters(), stock.parameters(), strict=True):
        assert (mine - theirs).abs().max() < 1e-6


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_the_loss_of_no_label_is_zero_and_has_zero_gradients(family):
    model = composer_model(build(family).train())
    inputs = batch(family)
    inputs["labels"] = torch.full_like(inputs["labels"], -100)
    if family == "llama":
        inputs["labels"][:, 0] = 5
    loss = model.loss(model(inputs), inputs)
    loss.backward()
    assert loss == 0
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert gradients, "each rank takes part in the reduction of gradients"
    assert all(torch.equal(g, torch.zeros_like(g)) for g in gradients)


def test_a_loss_that_is_nan_with_labels_stays_nan():
    model = composer_model(build("bert").train())
    model.model.cls.predictions.decoder.bias.data[3] = torch.nan
    inputs = batch("bert")
    assert model.loss(model(inputs), inputs).isnan()


@pytest.mark.parametrize(
    ("family", "algorithms"), [("bert", ()), ("bert", (SparsePrediction,)), ("llama", ())]
)
def test_a_batch_without_any_label_changes_nothing(family, algorithms):
    """Its loss is 0, and so are its gradients: Composer divides by the weights of its micro-batches."""
    inputs = unlabelled_rows(family)
    inputs["labels"][:] = -100
    stock = build(family, **(STILL if family == "bert" else {})).train()
    ours, logged = trained(copy.deepcopy(stock), inputs, [each() for each in algorithms])
    assert logged == 0
    for mine, theirs in zip(ours.parameters(), stock.parameters(), strict=True):
        assert torch.equal(mine, theirs)
