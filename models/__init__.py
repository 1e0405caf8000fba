"""Stock models to change, and models after surgery: saved, loaded, exported."""

from cadenza.models.auto import CadenzaConfig
from cadenza.models.errors import ModelError
from cadenza.models.export import export
from cadenza.models.image_folder import load_resnet
from cadenza.models.language_model import causal_lm, composer_model, masked_lm
from cadenza.models.lora import has_adapters
from cadenza.models.published import (
    load_modernbert,
    load_mosaicbert,
    save_modernbert,
    save_mosaicbert,
)
from cadenza.models.quantized.merging import MergeReport, merge_adapters
from cadenza.models.resnet import classifier, resnet
from cadenza.models.saved import load, save
from cadenza.models.text_classifier import text_classifier

__all__ = [
    "CadenzaConfig",
    "MergeReport",
    "ModelError",
    "causal_lm",
    "classifier",
    "composer_model",
    "export",
    "has_adapters",
    "load",
    "load_modernbert",
    "load_mosaicbert",
    "load_resnet",
    "masked_lm",
    "merge_adapters",
    "resnet",
    "save",
    "save_modernbert",
    "save_mosaicbert",
    "text_classifier",
]
