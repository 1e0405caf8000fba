"""Where a curve first reaches a value; and numbers that JSON lacks."""

import json
import math

import pytest

from cadenza.studies.crossing import crossing
from cadenza.studies.report import as_json


@pytest.mark.parametrize(
    ("values", "goal", "expected"),
    [
        ([5.0, 4.0, 4.5, 3.0], 4.0, (1, 1.0)),
        ([5.0, 4.0, 4.5, 3.0], 3.75, (3, 0.5)),
        ([5.0, 1.0], 4.0, (1, 0.25)),
        ([5.0, 4.0], 6.0, (0, 1.0)),
        ([5.0, 4.0], 3.0, None),
        ([], 3.0, None),
    ],
)
def test_the_first_value_at_or_below_the_goal(values, goal, expected):
    assert crossing(values, goal) == expected


def test_json_has_null_for_what_is_not_finite():
    found = {"a": [1.5, math.nan, {"b": math.inf}], "c": (0, -math.inf), "d": None, "e": "nan"}
    assert json.loads(as_json(found)) == {
        "a": [1.5, None, {"b": None}],
        "c": [0, None],
        "d": None,
        "e": "nan",
    }
    assert "NaN" not in as_json(found)
