"""What a guarded State refuses, without a Trainer: other options, other weights, algorithms left out."""

from types import SimpleNamespace

import pytest

from cadenza.algorithms import GLU, ALiBi, MaskingSchedule, VocabPadding
from cadenza.surgery import CheckpointError, Surgery
from cadenza.surgery.resume import guard

MISMATCH = "Error(s) in loading state_dict for Model:\n\tMissing key(s) in state_dict: {}. \n\n\t"


class State:
    """The methods that a Trainer calls to load; what they are called with is kept, or `error` raised."""

    def __init__(self, *algorithms, peft=False, error=None):
        self.algorithms, self.error, self.calls = list(algorithms), error, []
        self.model = SimpleNamespace(using_peft=peft)
        guard(self, Surgery)

    def load_model_state(self, state_dict, logger, strict, *args, **kwargs):
        self.calls.append((logger, strict, args, kwargs))
        if self.error is not None:
            raise self.error
        return "weights"

    def load_state_dict(self, state, logger, strict=False, *args, **kwargs):
        self.calls.append((logger, strict, args, kwargs))
        return "all"


def saved(*algorithms, **others):
    listed = [(type(a).__name__, {"repr": repr(a)}) for a in algorithms]
    return {"algorithms": [*listed, *((name, {"repr": text}) for name, text in others.items())]}


def test_a_load_that_fits_goes_through_as_it_was_asked_for():
    state = State(GLU())
    assert state.load_model_state(saved(GLU()), "logger", False, 1, key=2) == "weights"
    assert state.load_state_dict(saved(GLU()), "logger", False, 1, key=2) == "all"
    assert state.calls == [("logger", False, (1,), {"key": 2}), ("logger", True, (1,), {"key": 2})]


def test_a_state_is_guarded_once():
    state = State(GLU())
    guarded = state.load_model_state, state.load_state_dict
    guard(state, Surgery)
    assert (state.load_model_state, state.load_state_dict) == guarded


@pytest.mark.parametrize(
    ("peft", "asked", "excluded", "strict"),
    [
        (False, {}, None, True),
        (False, {}, [], True),
        (False, {}, ["ALiBi"], False),
        (True, {}, None, False),  # the checkpoint holds the adapters alone
        (True, {"strict": True}, ["ALiBi"], True),
    ],
)
def test_a_full_load_wants_every_weight_unless_some_are_left_out(peft, asked, excluded, strict):
    state = State(GLU(), peft=peft)
    state.load_state_dict(saved(GLU()), None, exclude_algorithms=excluded, **asked)
    assert state.calls == [(None, strict, (), {"exclude_algorithms": excluded})]


def test_a_model_that_knows_no_adapters_is_whole():
    state = State(GLU())
    state.model = SimpleNamespace()
    state.load_state_dict(saved(GLU()), None)
    assert [strict for _, strict, *_ in state.calls] == [True]


def test_other_options_are_refused_before_anything_is_loaded():
    state = State(ALiBi(), GLU("swiglu"))
    said = (
        r"^the checkpoint was made with GLU\(variant='geglu', intermediate_size=24\), not with "
        r"GLU\(variant='swiglu', intermediate_size=None\): "
        r"variant was 'geglu' and is 'swiglu'; intermediate_size was 24 and is None$"
    )
    with pytest.raises(CheckpointError, match=said):
        state.load_model_state(saved(ALiBi(), GLU("geglu", 24)), None, True)
    with pytest.raises(CheckpointError, match=r": multiple was 32 and is 64$"):
        State(VocabPadding()).load_model_state(saved(VocabPadding(32)), None, False)
    assert state.calls == []


def test_only_surgeries_have_to_be_the_same():
    state = State(MaskingSchedule(0.3), GLU())
    state.load_model_state(saved(MaskingSchedule(0.2)), None, True)
    assert len(state.calls) == 1


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ('"a", "b"', 'Missing key(s) in state_dict: "a", "b".'),
        ('"a", "b", "c", "d"', 'Missing key(s) in state_dict: "a", "b", "c", "d".'),
        ('"a", "b", "c", "d", "e"', 'Missing key(s) in state_dict: "a", "b", "c", "d" and 1 more'),
        ('"a", "b", "c", "d", "e", "f"', 'Missing key(s) in state_dict: "a", "b", "c", "d" and 2 more'),
    ],
)
def test_weights_that_do_not_fit_are_said_in_short(keys, said):
    error = RuntimeError(MISMATCH.format(keys))
    with pytest.raises(CheckpointError) as raised:
        State(GLU(), error=error).load_model_state(saved(), None, True)
    assert str(raised.value) == f"the checkpoint is of another model: {said}"
    assert raised.value.__cause__ is error


def test_other_errors_are_left_as_they_are():
    error = RuntimeError("out of memory")
    with pytest.raises(RuntimeError, match=r"^out of memory$") as raised:
        State(GLU(), error=error).load_model_state(saved(), None, True)
    assert raised.value is error


def test_a_surgery_that_is_left_out_is_said_unless_it_is_excluded():
    state = State(GLU())
    content = saved(GLU(), ALiBi())
    with pytest.raises(CheckpointError, match=r"made with ALiBi\(\), which is left out here; list it again"):
        state.load_state_dict(content, None)
    state.load_state_dict(content, None, exclude_algorithms=["ALiBi"])
    State(ALiBi(), GLU()).load_state_dict(content, None)
    with pytest.raises(CheckpointError, match="MaskingSchedule"):
        state.load_state_dict(saved(MaskingSchedule(0.3)), None)


def test_algorithms_of_others_may_be_left_out():
    content = saved(Alibi="Alibi(max_sequence_length=8)", Foreign="Foreign()")
    assert State(GLU()).load_state_dict(content, None) == "all"
