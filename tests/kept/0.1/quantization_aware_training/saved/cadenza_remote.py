"""The model in this folder was changed by surgery: its weights mean something else to stock code."""

try:
    from cadenza.models.auto import *  # noqa: F403
except ImportError as error:
    raise ImportError(
        "this model needs the package cadenza, version 0.1.0 or later, which its README.md names; "
        "without it, it would compute other outputs than it was trained to"
    ) from error
