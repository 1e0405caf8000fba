"""How far training has come."""

from composer.core import State, Time, TimeUnit


def progress(state: State) -> float:
    """The share of training that is done, epochs counted by their batches."""
    end, now = state.max_duration, state.timestamp
    if end is None:
        return 0.0
    if end.unit == TimeUnit.EPOCH and state.dataloader_len is not None:
        return (now.epoch.value + now.batch_in_epoch.value / int(state.dataloader_len)) / end.value
    return now.get(end.unit).value / end.value


def reached(state: State, time: Time) -> bool:
    """Whether training has come to `time`, counted from its start."""
    if time.unit == TimeUnit.DURATION:
        return progress(state) >= time.value
    return state.timestamp.get(time.unit) >= time
