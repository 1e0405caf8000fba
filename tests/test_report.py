"""Reports: what they say and count, and the way back."""

import pytest
from families import build
from torch import nn

from cadenza.algorithms import apply_alibi, apply_glu, apply_quantization_aware_training
from cadenza.surgery import Change, Report, SurgeryError
from cadenza.surgery.report import describe


def test_a_report_of_nothing():
    model = nn.Linear(2, 2)
    report = Report("Double()", model)
    assert len(report) == 0
    assert report, "a report is there, whatever it says"
    assert str(report) == "Double(): 0 modules changed"
    assert repr(report) == "Report(surgery='Double()', changes=[], already=0, skipped={}, notes=[])"
    assert report.excuses() == ""
    report.undo()
    assert report.changes == []


def test_reports_share_nothing():
    one, two = Report("A()", nn.Linear(1, 1)), Report("B()", nn.Linear(1, 1))
    one.changes.append(Change("a", "before", "after"))
    one.skipped["b"] = "why"
    one.notes.append("note")
    assert (two.changes, two.skipped, two.notes) == ([], {}, [])


def test_all_that_a_report_says():
    report = Report("Double()", nn.Linear(2, 2), already=3)
    report.changes += [Change("", "Linear", "DoubledLinear"), Change("a.b", "this", "that")]
    report.notes += ["half the bytes", "and so on"]
    report.skipped.update({"c": "it is tied", "d": "it is empty"})
    assert str(report).splitlines() == [
        "Double(): 2 modules changed, 3 already were; half the bytes; and so on",
        "  (root): Linear -> DoubledLinear",
        "  a.b: this -> that",
        "  left as it is: c, it is tied",
        "  left as it is: d, it is empty",
    ]
    assert report.excuses() == "; left as it is: c, it is tied, and 1 more"
    del report.skipped["c"]
    assert report.excuses() == "; left as it is: d, it is empty"


def test_the_claims_of_attention_are_shown():
    model = build("bert")
    report = apply_alibi(model)
    attention = next(c for c in report.changes if c.path == "bert.encoder.layer.1.attention.self")
    name = model.bert.encoder.layer[1].attention.self._get_name()
    assert attention.before == name
    assert attention.after == f"{name} [bias=alibi]"
    assert describe(model.bert.encoder.layer[0].output.dense) == repr(nn.Linear(48, 32))


def test_a_second_time_is_counted():
    model = build("bert")
    apply_glu(model)
    report = apply_glu(model)
    assert str(report) == "GLU(variant='geglu', intermediate_size=None): 0 modules changed, 4 already were"


def test_an_undo_clears_the_report_and_comes_once():
    model = build("bert")
    report = apply_glu(model)
    report.undo()
    assert len(report) == 0
    again = apply_glu(model)
    report.undo()
    assert len(again) == 4
    assert "Gated" in model.bert.encoder.layer[0].intermediate._get_name()


def test_a_sealed_report_has_no_way_back():
    report = apply_quantization_aware_training(nn.Sequential(nn.Linear(2, 2)))
    report.seal("it is too late")
    with pytest.raises(
        SurgeryError, match=r"QuantizationAwareTraining\(.*\) can't be undone: it is too late"
    ):
        report.undo()
    assert len(report) == 1
