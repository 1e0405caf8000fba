"""The errors of a surgery. Each message names what is wrong, where, and what would be right."""


class SurgeryError(ValueError):
    """A surgery can't be done as asked. The model and the optimizers are left as they were."""


class NoEffect(SurgeryError):
    """A surgery found nothing to change."""


class Conflict(SurgeryError):
    """Two surgeries claim the same thing, or one is applied again with other options."""


class OrderError(SurgeryError):
    """A surgery is applied after one that it must precede."""


class CheckpointError(SurgeryError):
    """A checkpoint or a saved model can't be loaded as asked. What was loaded before the error stays."""
