"""The check of rotary frequencies under the name of the checks."""

import pytest
from families import build

from cadenza.checks import check_rope
from cadenza.surgery import SurgeryError


def test_frequencies_that_a_cast_rounded_are_caught():
    model = build("llama")
    assert check_rope(model) == 1
    with pytest.raises(SurgeryError, match=r"rotary_emb: inv_freq .* is off by"):
        check_rope(model.bfloat16())
