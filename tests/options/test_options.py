"""Declared options: which values fit, and what is said of those that don't."""

from dataclasses import dataclass, fields

import pytest

from cadenza.options import Choice, Option, Range, Text, Times, check, declared, option, problem, shown

NAN, INF = float("nan"), float("inf")
WRONG_TIMES = ("soon", "infba", "0.5ep", "ba", "", [1])
TIME = "be a number with a unit, such as 70000ba, 1ep"


@pytest.mark.parametrize(
    ("valid", "value", "must"),
    [
        *((Range("[0, 1)"), value, "") for value in (0, 0.5, 0.999)),
        (Range("[0, 1)"), -1, "be at least 0"),
        (Range("[0, 1)"), 1, "lie in [0, 1)"),
        (Range("(0, 1]"), 0, "lie in (0, 1]"),
        (Range("(0, 1]"), 2, "be at most 1"),
        (Range("[1, 9]"), 10**400, "be at most 9"),
        (Range("[1, 9]"), True, "be a number in [1, 9]"),
        (Range("[1, 9]"), "x", "be a number in [1, 9]"),
        (Range("[1, 9]", words=("auto",)), "auto", ""),
        (Range("[1, 9]", words=("auto",), whole=True), "all", "be auto or an integer in [1, 9]"),
        (Range("[1, 9]", whole=True), 1.5, "be an integer in [1, 9]"),
        (Range("[1, 9]"), NAN, "be at least 1"),
        (Choice("a", "b", "c"), "b", ""),
        (Choice("a", "b", "c"), "d", "be a, b or c"),
        (Choice("a", "b"), ["a"], "be a or b"),
        (Text(), "a b", ""),
        (Text(), " ", "be a text that isn't empty"),
        (Text(), "a\nb", "hold printable characters alone"),
        *((Times(), value, "") for value in ("1ba", "1ep", "5sp", "1e3tok", "0.5dur", "1dur")),
        (Times(zero=True), "0ba", ""),
        (Times(), "0ba", "be above zero"),
        (Times(), "-1ba", "be above zero"),
        (Times(zero=True), "-1ba", "not be negative"),
        (Times(), "2dur", "be at most 1dur, which is all of training"),
        (Times(), "nandur", "be above zero"),
        (
            Times(share=False),
            "0.5dur",
            "say how long all of training is, such as 70000ba, 1ep",
        ),
        (Times(), "1e300ba", "be at most 1e+15"),
        *(
            (Times(), value, f"{TIME}, 1000sp or 0.06dur")
            for value in ("soon", "infba", "0.5ep", "ba", "", [1])
        ),
        (Times(share=False), "soon", f"{TIME} or 1000sp"),
        (Times(), 2, "have a unit, such as 2ep (passes over the data) or 2ba (batches)"),
    ],
)
def test_what_a_value_must_be(valid, value, must):
    assert valid.wrong(value).startswith(must)
    assert bool(valid.wrong(value)) == bool(must)


@pytest.mark.parametrize(
    ("value", "option", "said"),
    [
        (None, Option(valid=Range("[1, 2]")), ""),
        (3, Option(), ""),
        (INF, Option(), "key is inf; it must be a finite number"),
        ({"a": [1, {"b": NAN}]}, Option(), "key.a[1].b is nan; it must be a finite number"),
        ([0.5], Option(valid=Range("[0, 1)"), length=2), "key is [0.5]; it must hold 2 values"),
        ([0.5, 1], Option(valid=Range("[0, 1)"), length=2), "key[1] is 1; it must lie in [0, 1)"),
    ],
)
def test_what_is_said(value, option, said):
    assert problem("key", value, option) == said


def test_a_long_value_is_shown_in_part():
    assert shown([1]) == "[1]"
    assert shown("a" * 100) == "'" + "a" * 79 + "..."


@dataclass
class Some:
    size: int = option(meaning="A size.", valid=Range("[1, 9]"))
    many: list = option([1], "Some.")


def test_a_field_declares_itself():
    size, many = fields(Some)
    assert declared(size) == Option("A size.", Range("[1, 9]"))
    first, second = Some(3), Some(3)
    assert first.many == second.many == [1]
    assert first.many is not second.many
    assert declared(many).valid is None
    with pytest.raises(TypeError, match="size"):
        Some()
    check(Some(3), "x.", KeyError)
    with pytest.raises(KeyError, match=r"x\.size is 0; it must be at least 1"):
        check(Some(0), "x.", KeyError)


def test_nothing_heavy_is_imported_for_them():
    """The helper declares fields of classes that are read before torch is there."""
    import subprocess
    import sys

    code = "import sys, cadenza.options; sys.exit(bool({'torch', 'composer'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
