"""Base models as Composer models."""

from cadenza.models.bert import ModelError, composer_model, masked_lm

__all__ = ["ModelError", "composer_model", "masked_lm"]
