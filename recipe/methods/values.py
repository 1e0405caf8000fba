"""Ranges of the options of Composer's algorithms whose constructors take any number."""

from math import inf
from typing import Any

from composer.core import Time

ABOVE_0 = "above 0"
SHARE = "from 0 to 1"
POSITIVE_SHARE = "above 0 and at most 1"
AT_LEAST_0 = "at least 0"
AT_LEAST_1 = "at least 1"
RIGHT = {
    ABOVE_0: lambda value: 0 < value < inf,
    SHARE: lambda value: 0 <= value <= 1,
    POSITIVE_SHARE: lambda value: 0 < value <= 1,
    AT_LEAST_0: lambda value: 0 <= value < inf,
    AT_LEAST_1: lambda value: 1 <= value < inf,
}
CLIPPING = ("adaptive", "norm", "value")
RANGES: dict[str, dict[str, str]] = {
    "blurpool": {"min_channels": AT_LEAST_0},
    "cutmix": {"alpha": ABOVE_0},
    "cutout": {"num_holes": AT_LEAST_1, "length": POSITIVE_SHARE},
    "ema": {"smoothing": SHARE},
    "factorize": {
        "min_channels": AT_LEAST_0,
        "min_features": AT_LEAST_0,
        "latent_channels": ABOVE_0,
        "latent_features": ABOVE_0,
    },
    "ghost_batchnorm": {"ghost_batch_size": AT_LEAST_1},
    "gradient_clipping": {"clipping_threshold": ABOVE_0},
    "label_smoothing": {"smoothing": SHARE},
    "layer_freezing": {"freeze_start": SHARE, "freeze_level": SHARE},
    "mixup": {"alpha": ABOVE_0},
    "progressive_resizing": {"size_increment": AT_LEAST_1},
    "sam": {"rho": ABOVE_0, "epsilon": AT_LEAST_0, "interval": AT_LEAST_1},
    "selective_backprop": {
        "start": SHARE,
        "end": SHARE,
        "keep": POSITIVE_SHARE,
        "scale_factor": POSITIVE_SHARE,
        "interrupt": AT_LEAST_0,
    },
    "seq_length_warmup": {"duration": SHARE, "min_seq_length": AT_LEAST_1, "step_size": AT_LEAST_1},
    "squeeze_excite": {"latent_channels": ABOVE_0, "min_channels": AT_LEAST_0},
    "swa": {"swa_lr": ABOVE_0},
    "weight_standardization": {"n_last_layers_ignore": AT_LEAST_0},
}
# A time above zero, and one within training.
TIMES = {"ema": ("half_life", "update_interval"), "swa": ("update_interval",)}
STARTS = {"ema": ("ema_start",), "swa": ("swa_start", "swa_end")}


def check(name: str, options: dict[str, Any]) -> None:
    """Raise `ValueError` if one of the `options` of the algorithm `name` is out of its range."""
    for key, right in RANGES.get(name, {}).items():
        if options[key] is not None and not RIGHT[right](options[key]):
            raise ValueError(f"algorithms.{name}.{key} is {options[key]}; it must be {right}")
    for key in (*TIMES.get(name, ()), *STARTS.get(name, ())):
        if options[key] is not None:
            _check_time(f"algorithms.{name}.{key}", options[key], positive=key in TIMES[name])
    if name == "gradient_clipping" and options["clipping_type"] not in CLIPPING:
        kind = options["clipping_type"]
        raise ValueError(f"algorithms.{name}.clipping_type is {kind!r}; it must be {' or '.join(CLIPPING)}")
    if name == "ema" and options["smoothing"] is not None and options["update_interval"] is None:
        raise ValueError(f"algorithms.{name}.update_interval is missing; smoothing needs it, such as 1ba")


def _check_time(key: str, text: str, positive: bool) -> None:
    try:
        time = Time.from_timestring(text)
    except ValueError as error:
        right = "a number with a unit, such as 100ba, 1ep or 0.06dur"
        raise ValueError(f"{key} is {text!r}; it must be {right}") from error
    if time.value < 0 or (positive and time.value == 0):
        raise ValueError(f"{key} is {text}; it must be {ABOVE_0 if positive else AT_LEAST_0}")
    if time.unit.value == "dur" and time.value > 1:
        raise ValueError(f"{key} is {text}; training ends at 1dur")
