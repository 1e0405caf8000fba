"""Distillation in Composer's Trainer: the loss, the teacher, what checkpoints hold, what is refused."""

import copy

import pytest
import torch
from composer import Trainer
from composer.algorithms import MixUp
from composer.core import Callback
from composer.models import HuggingFaceModel
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
)

from cadenza.algorithms import Distillation
from cadenza.models import classifier
from cadenza.surgery import SurgeryError
from cadenza.surgery.checkpoint import read, saved_algorithms

CLASSES = 3


def network(seed, classes=CLASSES, dropout=0.0):
    torch.manual_seed(seed)
    layers = torch.nn.Flatten(), torch.nn.Dropout(dropout), torch.nn.Linear(12, classes)
    return torch.nn.Sequential(*layers).double()


def images(batches=2):
    torch.manual_seed(5)
    data = TensorDataset(
        torch.randn(4 * batches, 3, 2, 2, dtype=torch.float64), torch.arange(4 * batches) % CLASSES
    )
    return DataLoader(data, batch_size=4)


class Losses(Callback):
    """The loss of each micro-batch, and the gradients of each batch."""

    def __init__(self):
        self.losses, self.gradients = [], []

    def after_backward(self, state, logger):
        self.losses.append(state.loss.item())

    def after_train_batch(self, state, logger):
        self.gradients.append([p.grad.clone() for p in state.model.parameters()])


def trained(algorithms, model=None, loader=None, duration="2ba", **options):
    """The trainer after some batches of a student on one device, and what `Losses` saw."""
    seen, model = Losses(), classifier(network(0), CLASSES) if model is None else model
    trainer = Trainer(
        model=model,
        train_dataloader=loader or images(),
        optimizers=torch.optim.SGD(model.parameters(), lr=0.1),
        max_duration=duration,
        algorithms=algorithms,
        callbacks=[seen],
        progress_bar=False,
        precision="fp32",
        seed=1,
        **options,
    )
    trainer.fit()
    return trainer, seen


def weights(trainer):
    return trainer.state.model.state_dict()


def plain(weight, temperature, teacher, batch):
    """The loss of the student of seed 0 in float64 by its definition, and its gradients."""
    student, (x, y) = network(0), batch
    p, q = ((each(x) / temperature).softmax(1) for each in (teacher, student))
    divergence = (p.detach() * (p.detach() / q).log()).sum(1).mean()
    loss = (1 - weight) * cross_entropy(student(x), y) + weight * temperature**2 * divergence
    loss.backward()
    return loss.item(), [parameter.grad for parameter in student.parameters()]


@pytest.mark.parametrize(("weight", "temperature"), [(0.5, 2.0), (1.0, 1.0), (0.25, 4.0)])
def test_loss_and_gradients_are_those_of_the_definition(weight, temperature):
    _, seen = trained([Distillation.of(network(9), weight, temperature)], duration="1ba")
    loss, gradients = plain(weight, temperature, network(9), next(iter(images())))
    assert seen.losses == pytest.approx([loss], rel=1e-9)
    for ours, expected in zip(seen.gradients[0], gradients, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-9)  # Composer sums a loss in float32


def test_the_teacher_has_an_effect():
    ends = [weights(trained([Distillation.of(network(seed))])[0]) for seed in (8, 9)]
    assert not torch.equal(ends[0]["module.2.weight"], ends[1]["module.2.weight"])


def test_a_weight_of_zero_is_stock():
    stock, _ = trained([])
    ours, _ = trained([Distillation.of(network(9), weight=0.0)])
    for key, value in weights(stock).items():
        assert torch.equal(value, weights(ours)[key]), key


def test_the_teacher_stays_and_is_judged_in_eval_mode():
    teacher = network(9, dropout=0.5).train()
    before = copy.deepcopy(teacher.state_dict())
    trainer, seen = trained([Distillation.of(teacher)], duration="1ba")
    assert not teacher.training
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
    for key, value in teacher.state_dict().items():
        assert torch.equal(value, before[key])
    assert seen.losses == pytest.approx([plain(0.5, 2.0, network(9), next(iter(images())))[0]], rel=1e-9)
    optimized = {id(p) for group in trainer.state.optimizers[0].param_groups for p in group["params"]}
    assert not optimized & {id(p) for p in teacher.parameters()}


def test_microbatches_add_up_to_the_batch():
    whole, _ = trained([Distillation.of(network(9))])
    parts, _ = trained([Distillation.of(network(9))], device_train_microbatch_size=3)
    torch.testing.assert_close(
        weights(parts)["module.2.weight"], weights(whole)["module.2.weight"], rtol=1e-5, atol=1e-7
    )


def test_a_checkpoint_holds_no_teacher_and_resumes(tmp_path):
    def made(duration, **options):
        options |= {"save_folder": str(tmp_path), "save_interval": "1ba", "save_overwrite": True}
        return trained([Distillation.of(network(9))], duration=duration, **options)[0]

    whole = weights(made("2ba"))
    made("1ba")
    path = tmp_path / "ep0-ba1-rank0.pt"
    state = read(path, trusted=True)
    assert state["model"].keys() == {"module.2.weight", "module.2.bias"}
    assert saved_algorithms(state)["Distillation"] == (
        "Distillation(teacher='Sequential', weight=0.5, temperature=2.0)"
    )
    resumed = made("2ba", load_path=str(path))
    for key, value in weights(resumed).items():
        assert torch.equal(value, whole[key]), key


def test_mixup_weighs_the_labels_alone():
    """Composer's MixUp scales the loss of the labels; the teacher sees the mixed images."""
    seen = []

    class Recorded(torch.nn.Sequential):
        def forward(self, x):
            seen.append(x)
            return super().forward(x)

    x, y = next(iter(images()))
    mixup = MixUp(alpha=0.5, interpolate_loss=True)
    _, losses = trained([mixup, Distillation.of(Recorded(*network(9)))], duration="1ba")
    student, teacher = network(0), network(9)
    p, q = ((each(seen[0]) / 2.0).softmax(1) for each in (teacher, student))
    soft = 4.0 * (p * (p / q).log()).sum(1).mean()
    share, other = mixup.mixing, mixup.permuted_target
    hard = [cross_entropy(student(seen[0]), labels) for labels in (y, other)]
    assert not torch.equal(seen[0], x)
    expected = 0.5 * ((1 - share) * hard[0] + share * hard[1]) + 0.5 * soft
    assert losses.losses == pytest.approx([expected.item()], rel=1e-6)


REFUSED = {
    "classes": (lambda: Distillation.of(network(9, 4)), r"are \(4, 4\), the student's \(4, 3\)"),
    "not loaded": (
        lambda: Distillation("runs/full"),
        r"runs/full isn't loaded; .*Distillation.of\(network\)",
    ),
    "one class": (
        lambda: Distillation.of(network(9, 1)),
        r"is for classifiers: the logits here are \(4, 1\)",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_before_a_step(case):
    make, message = REFUSED[case]
    model = classifier(network(0), CLASSES)
    with pytest.raises(SurgeryError, match=message):
        trained([make()], model)
    assert torch.equal(model.module[2].weight, network(0)[2].weight)


def test_the_student_is_no_teacher():
    model = classifier(network(0), CLASSES)
    with pytest.raises(SurgeryError, match="shares parameters with the model"):
        trained([Distillation.of(model.module)], model)


@pytest.mark.parametrize("options", [{"weight": 1.1}, {"weight": -0.1}, {"temperature": 0}, {"teacher": " "}])
def test_what_does_not_fit_is_said(options):
    (name,) = options
    with pytest.raises(SurgeryError, match=rf"distillation {name} is"):
        Distillation(**{"teacher": "runs/full", **options})


def bert(cls, seed, **fields):
    torch.manual_seed(seed)
    small = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    return cls(BertConfig(vocab_size=20, max_position_embeddings=8, num_labels=CLASSES, **small, **fields))


class Texts:
    def __init__(self, labels, **more):
        self.rows = [{"input_ids": torch.randint(20, (6,)), "labels": labels, **more} for _ in range(4)]

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return self.rows[index]


def text_loss(algorithms, cls=BertForSequenceClassification, labels=1, **more):
    torch.manual_seed(2)
    loader = DataLoader(Texts(torch.tensor(labels), **more), batch_size=4)
    model = HuggingFaceModel(bert(cls, 0, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0))
    _, seen = trained(algorithms, model, loader, "1ba")
    return seen.losses[0], next(iter(loader))


def test_a_text_classifier():
    ours, batch = text_loss([Distillation.of(bert(BertForSequenceClassification, 9))])
    with torch.no_grad():
        outputs = [bert(BertForSequenceClassification, seed).eval()(**batch) for seed in (0, 9)]
    q, p = ((each.logits.double() / 2.0).softmax(1) for each in outputs)
    expected = 0.5 * outputs[0].loss.double() + 0.5 * 4.0 * (p * (p / q).log()).sum(1).mean()
    assert ours == pytest.approx(expected.item(), rel=1e-5)


def test_a_language_model_is_refused():
    labels = [1] * 6
    with pytest.raises(SurgeryError, match="is for classifiers: the logits here are"):
        text_loss([Distillation.of(bert(BertForMaskedLM, 9))], BertForMaskedLM, labels)


def test_inputs_that_the_teacher_does_not_take_are_refused():
    sizes = {"dim": 8, "n_layers": 1, "n_heads": 2, "hidden_dim": 16, "vocab_size": 20}
    teacher = DistilBertForSequenceClassification(DistilBertConfig(**sizes, num_labels=CLASSES))
    what = "DistilBertForSequenceClassification doesn't take token_type_ids of the batch"
    with pytest.raises(SurgeryError, match=what):
        text_loss([Distillation.of(teacher)], token_type_ids=torch.zeros(6, dtype=torch.long))


def test_what_the_student_does_not_take_is_no_input():
    teacher = bert(BertForSequenceClassification, 9)
    assert text_loss([Distillation.of(teacher)], draw=torch.ones(()))[0] > 0
