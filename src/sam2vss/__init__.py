"""Temporally consistent, sharp-edged semantic masks for any video."""

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .classifiers.classifier import MaskletClassifier
    from .classifiers.fusion import MaskletFusion
    from .refiner import Refiner, refine
    from .segmentor import classify
    from .settings import MaskletSettings, VoteSettings
    from .types import BaseLabels, Frame, LabelSpace, MaskletWindow, Refinement, Window

__all__ = [
    "BaseLabels",
    "Frame",
    "LabelSpace",
    "MaskletClassifier",
    "MaskletFusion",
    "MaskletSettings",
    "MaskletWindow",
    "Refinement",
    "Refiner",
    "VoteSettings",
    "Window",
    "__version__",
    "classify",
    "refine",
]

_HOMES = {
    "Refiner": "refiner",
    "refine": "refiner",
    "classify": "segmentor",
    "MaskletClassifier": "classifiers.classifier",
    "MaskletFusion": "classifiers.fusion",
    "MaskletSettings": "settings",
    "VoteSettings": "settings",
    **dict.fromkeys(("BaseLabels", "Frame", "LabelSpace", "MaskletWindow", "Refinement", "Window"), "types"),
}


def __getattr__(name: str) -> Any:
    """Import public names on first use, so that `import sam2vss` and `sam2vss --help` stay fast."""
    if name == "__version__":
        try:
            return version("sam2vss")
        except PackageNotFoundError:
            return "unknown"
    if name not in _HOMES:
        raise AttributeError(f"module 'sam2vss' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
