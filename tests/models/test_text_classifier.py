"""Models with a head for classes or a number: which weights are new, and what their metrics are."""

import math

import pytest
import torch
from families import build

from cadenza.algorithms import apply_alibi, apply_glu
from cadenza.models import ModelError, save, text_classifier
from cadenza.models.text_classifier import labels_of, metrics

TWO, THREE = ["no", "yes"], ["entailment", "neutral", "contradiction"]
SIZES = {
    **{"vocab_size": 90, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2},
    **{"num_attention_heads": 4, "max_position_embeddings": 32, "pad_token_id": 0},
}
DISTIL = {"vocab_size": 90, "dim": 32, "n_heads": 4, "n_layers": 2, "hidden_dim": 48, "pad_token_id": 0}
FAMILIES = {
    **dict.fromkeys(("bert", "roberta", "electra", "albert", "llama"), SIZES),
    "distilbert": DISTIL,
    "modernbert": {**SIZES, "cls_token_id": 1, "sep_token_id": 2},
}


def batch(labels):
    ids = torch.arange(3, 27).reshape(3, 8)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_loss_is_the_cross_entropy_of_the_classes(family):
    model = text_classifier(THREE, family, config=FAMILIES[family]).eval()
    given = batch(torch.tensor([0, 2, 1]))
    outputs = model(given)
    shares = outputs["logits"].double().exp()
    expected = -(shares[range(3), [0, 2, 1]] / shares.sum(1)).log().mean()
    assert float(model.loss(outputs, given).detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    torch.testing.assert_close(model.eval_forward(given), outputs["logits"])


def test_the_loss_of_a_number_is_the_squared_error():
    model = text_classifier([], config=SIZES).eval()
    given = batch(torch.tensor([0.5, -1.0, 4.0]))
    outputs = model(given)
    found = model.eval_forward(given)
    assert found.shape == (3,)
    expected = ((found - given["labels"]) ** 2).mean()
    torch.testing.assert_close(model.loss(outputs, given), expected)


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "modernbert", "llama"])
def test_an_encoder_without_a_head_gets_a_new_one(family, tmp_path):
    build(family).save_pretrained(tmp_path)
    stock = build(family).base_model.state_dict()
    torch.manual_seed(1)
    model = text_classifier(THREE, pretrained=str(tmp_path)).model
    loaded = model.base_model.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in stock.items())
    assert model.config.id2label == dict(enumerate(THREE))
    torch.manual_seed(2)
    other = text_classifier(THREE, pretrained=str(tmp_path)).model
    news = [
        name for name, value in model.named_parameters() if not torch.equal(value, other.get_parameter(name))
    ]
    assert news
    assert not any(name.removeprefix(f"{model.base_model_prefix}.") in stock for name in news)


def test_weights_of_the_base_model_may_not_be_missing(tmp_path):
    model = build("bert")
    model.save_pretrained(
        tmp_path, state_dict={k: v for k, v in model.state_dict().items() if ".layer.1." not in k}
    )
    with pytest.raises(
        ModelError, match=r"lacks weights of BertForSequenceClassification \(bert.encoder.layer.1"
    ):
        text_classifier(TWO, pretrained=str(tmp_path))


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "modernbert", "llama"])
@pytest.mark.parametrize(("labels", "kept"), [(TWO, True), (["a", "b"], False), (THREE, False), ([], False)])
def test_the_output_layer_is_kept_for_the_same_labels_alone(family, labels, kept, tmp_path):
    first = text_classifier(TWO, family, config=FAMILIES[family]).model
    first.save_pretrained(tmp_path)
    assert labels_of(str(tmp_path)) == TWO
    second = text_classifier(labels, pretrained=str(tmp_path)).model
    sizes = {
        name: value for name, value in second.state_dict().items() if value.shape[:1] == (len(labels) or 1,)
    }
    (output,) = {
        name.rpartition(".")[0] for name in sizes if name.endswith(".weight") and ".embed" not in name
    }
    for name, value in second.state_dict().items():
        before = first.state_dict()[name]
        if name == f"{output}.weight":
            assert (before.shape == value.shape and torch.equal(before, value)) is kept
        elif not name.startswith(output):
            assert torch.equal(before, value), name


def test_a_model_after_surgery_gets_a_head(tmp_path):
    model = build("bert")
    apply_glu(model)
    apply_alibi(model)
    save(model, tmp_path)
    found = text_classifier(TWO, pretrained=str(tmp_path)).model
    assert type(found).__name__ == "BertForSequenceClassification"
    for name, value in model.bert.state_dict().items():
        assert torch.equal(found.bert.state_dict()[name], value), name
    again = tmp_path / "again"
    save(found, again)
    assert labels_of(str(again)) == TWO
    same = text_classifier(TWO, pretrained=str(again)).model
    torch.testing.assert_close(same.eval()(**batch(None)).logits, found.eval()(**batch(None)).logits)


def test_labels_of_other_models(tmp_path):
    assert labels_of("no/such") is None
    build("bert").save_pretrained(tmp_path / "lm")
    assert labels_of(str(tmp_path / "lm")) is None
    text_classifier([], config=SIZES).model.save_pretrained(tmp_path / "number")
    assert labels_of(str(tmp_path / "number")) == []


def test_a_type_without_such_a_head_is_refused():
    with pytest.raises(ModelError, match="vit can't be built"):
        text_classifier(TWO, "vit")


LABELS, PREDICTED = [0, 0, 1, 1, 1, 2, 2, 0], [0, 1, 1, 1, 0, 2, 0, 0]


def plain(labels, predicted, classes):
    """Accuracy, macro F1 and Matthews' correlation, from the counts of a confusion matrix."""
    counts = [[0] * classes for _ in range(classes)]
    for one, other in zip(labels, predicted, strict=True):
        counts[one][other] += 1
    size, right = len(labels), sum(counts[n][n] for n in range(classes))
    rows = [sum(row) for row in counts]
    columns = [sum(row[n] for row in counts) for n in range(classes)]
    f1 = [2 * counts[n][n] / (rows[n] + columns[n]) for n in range(classes)]
    above = right * size - sum(r * c for r, c in zip(rows, columns, strict=True))
    below = math.sqrt((size**2 - sum(c * c for c in columns)) * (size**2 - sum(r * r for r in rows)))
    return right / size, f1, above / below


@pytest.mark.parametrize("classes", [2, 3])
def test_metrics_of_classes(classes):
    kept = [(a, b) for a, b in zip(LABELS, PREDICTED, strict=True) if max(a, b) < classes]
    labels, predicted = (list(each) for each in zip(*kept, strict=True))
    logits = torch.nn.functional.one_hot(torch.tensor(predicted), classes).float() * 2
    found = metrics(classes)
    for metric in found:
        metric.update(logits[:4], torch.tensor(labels[:4]))
        metric.update(logits[4:], torch.tensor(labels[4:]))
    loss, accuracy, f1, mcc = (float(metric.compute()) for metric in found)
    expected = plain(labels, predicted, classes)
    assert accuracy == pytest.approx(expected[0])
    assert f1 == pytest.approx(expected[1][1] if classes == 2 else sum(expected[1]) / 3)
    assert mcc == pytest.approx(expected[2])
    shares = logits.double().softmax(1)
    assert loss == pytest.approx(-float(shares[range(len(labels)), labels].log().mean()), rel=1e-5)


def test_metrics_of_numbers():
    truth, predicted = [1.0, 2.0, 4.0, 3.0, 9.0], [0.9, 2.5, 2.0, 3.1, 4.0]
    found = metrics(0)
    for metric in found:
        metric.update(torch.tensor(predicted), torch.tensor(truth))
    error, spearman, pearson = (float(metric.compute()) for metric in found)
    assert error == pytest.approx(sum((a - b) ** 2 for a, b in zip(truth, predicted, strict=True)) / 5)

    def correlation(a, b):
        a, b = (torch.tensor(each, dtype=torch.float64) for each in (a, b))
        a, b = a - a.mean(), b - b.mean()
        return float((a * b).sum() / (a.norm() * b.norm()))

    ranks = [[sorted(values).index(value) for value in values] for values in (truth, predicted)]
    assert spearman == pytest.approx(correlation(*ranks), abs=1e-5)
    assert pearson == pytest.approx(correlation(truth, predicted), abs=1e-5)
