"""Reports: their text, their counts, and their undo."""

from functools import partial

import pytest
from families import build
from torch import nn

from cadenza.algorithms import apply_alibi, apply_glu, apply_quantization_aware_training
from cadenza.surgery import Change, Report, Stage, SurgeryError
from cadenza.surgery.ledger import Entry
from cadenza.surgery.report import describe
from cadenza.surgery.undos import Undos

DOUBLE = Entry(Stage.PRECISION, "Double", {}, keeps_outputs=False)


def report_of(**facts):
    """The report of a surgery that has changed nothing so far."""
    return Report(DOUBLE, Undos(nn.Linear(2, 2), ()), **facts)


def test_a_report_of_nothing():
    report = report_of()
    assert len(report) == 0
    assert report, "a report is there, whatever it says"
    assert str(report) == "Double(): 0 modules changed"
    facts = "changes=[], already=0, skipped={}, notes=[]"
    assert repr(report) == f"Report(entry={DOUBLE!r}, {facts})", "the model isn't shown"
    assert report.first_skipped() == ""
    report.undo()
    assert report.changes == []


def test_reports_share_nothing():
    one, two = report_of(), report_of()
    one.changes.append(Change("a", "before", "after"))
    one.skipped["b"] = "why"
    one.notes.append("note")
    assert (two.changes, two.skipped, two.notes) == ([], {}, [])


def test_all_that_a_report_says():
    report = report_of(already=3)
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
    assert report.first_skipped() == "; left as it is: c, it is tied, and 1 more"
    del report.skipped["c"]
    assert report.first_skipped() == "; left as it is: d, it is empty"


def test_the_claims_of_attention_are_shown():
    model = build("bert")
    report = apply_alibi(model)
    attention = next(c for c in report.changes if c.path == "bert.encoder.layer.1.attention.self")
    name = model.bert.encoder.layer[1].attention.self._get_name()
    assert attention.before == name
    assert attention.after == f"{name} [positions=alibi]"
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


def test_undos_run_once_from_the_last_step_back():
    done = []

    def steps():
        for name in ("one", "two"):
            done.append(name)
            yield partial(done.append, f"{name} undone")

    undos = Undos(nn.Linear(2, 2), ())
    undos.run(steps())
    undos.undo()
    undos.undo()
    assert done == ["one", "two", "two undone", "one undone"]


def test_an_irreversible_report_is_not_undone():
    report = apply_quantization_aware_training(nn.Sequential(nn.Linear(2, 2)))
    report.irreversible = "it is too late"
    with pytest.raises(
        SurgeryError, match=r"QuantizationAwareTraining\(.*\) can't be undone: it is too late"
    ):
        report.undo()
    assert len(report) == 1
