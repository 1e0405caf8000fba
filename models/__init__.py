"""Base models to operate on, and models with surgeries behind them: saved, loaded, exported."""

from cadenza.models.auto import CadenzaConfig
from cadenza.models.bert import masked_lm
from cadenza.models.causal_lm import causal_lm
from cadenza.models.errors import ModelError
from cadenza.models.export import export
from cadenza.models.lora import has_adapters
from cadenza.models.mosaicbert import load_mosaicbert, save_mosaicbert
from cadenza.models.resnet import classifier, resnet
from cadenza.models.saved import load, save
from cadenza.models.stock import composer_model

__all__ = [
    "CadenzaConfig",
    "ModelError",
    "causal_lm",
    "classifier",
    "composer_model",
    "export",
    "has_adapters",
    "load",
    "load_mosaicbert",
    "masked_lm",
    "resnet",
    "save",
    "save_mosaicbert",
]
