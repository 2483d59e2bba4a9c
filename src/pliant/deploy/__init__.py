"""From a sub-network to files that run anywhere, with the proof that they do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pliant.lazy import lazy_names

if TYPE_CHECKING:
    from pliant.deploy.card import Card as Card
    from pliant.deploy.card import write_card as write_card
    from pliant.deploy.classifier import Classifier as Classifier
    from pliant.deploy.classifier import Prediction as Prediction
    from pliant.deploy.package import write_model as write_model
    from pliant.deploy.verify import Agreement as Agreement
    from pliant.deploy.verify import onnx_top1 as onnx_top1
    from pliant.deploy.verify import verify_accuracy as verify_accuracy
    from pliant.deploy.verify import verify_outputs as verify_outputs
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "card": ["Card", "write_card"],
            "classifier": ["Classifier", "Prediction"],
            "package": ["write_model"],
            "verify": ["Agreement", "onnx_top1", "verify_accuracy", "verify_outputs"],
        },
    )
