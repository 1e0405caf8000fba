"""What can go wrong in a surgery; each message says what, where, and what would be right."""


class SurgeryError(ValueError):
    """A surgery that can't be done as asked. The model and the optimizers are left as they were."""


class NoEffect(SurgeryError):
    """A surgery that found nothing to change."""


class Conflict(SurgeryError):
    """Two surgeries claim the same thing, or one comes again with other arguments."""


class OrderError(SurgeryError):
    """A surgery that comes after one that it must precede."""


class CheckpointError(SurgeryError):
    """A checkpoint or a saved model that can't be loaded as asked; what was loaded before is still there."""
