"""What encoders are called, `KIND:ID/LEVELS@SIZE`, and the fingerprint that tells their features apart."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import SettingsError
from ..hub import ModelLocation
from ..settings import MAX_IMAGE_SIZE, SAM2_ALIASES, SEGMENTER_ALIASES

FORMS = (
    "sam2:ID, segmenter:ID or backbone:ID, with /LEVELS behind it if wanted, such as sam2:nano/low, "
    "segmenter:segformer-b2/stage3+stage4 or backbone:org/name/last@448"
)
LEVELS = {  # of each kind: one of its levels, and how messages name them all
    "sam2": (r"high|mid|low|stage[1-4]", "high, mid, low, stage1 to stage4"),
    "segmenter": (r"stage[1-9]|fused", "stage1, stage2, ... or fused"),
    "backbone": (r"last|layer[0-9]{1,3}", "last, layer0, layer1, ..."),
}
NAMES_WITHOUT_SLASH = {"nano", "sam2-nano", "segformer-nano", *SAM2_ALIASES, *SEGMENTER_ALIASES}


@dataclass(frozen=True)
class EncoderName:
    """The parts of an encoder's name.

    Attributes:
        kind: "sam2", "segmenter" or "backbone".
        model: Alias, hub id, folder or file.
        levels: Names of the levels in the order asked for; none stands for the encoder's default.
        size: Side of the pictures that the network sees, or "WIDTHxHEIGHT"; "" stands for the encoder's default.
    """

    kind: str
    model: str
    levels: tuple[str, ...] = ()
    size: str = ""

    def __str__(self) -> str:
        levels = f"/{'+'.join(self.levels)}" if self.levels else ""
        return f"{self.kind}:{self.model}{levels}{f'@{self.size}' if self.size else ''}"

    @property
    def image_size(self) -> tuple[int, int] | None:
        """(height, width) of `size`; None if none was asked for."""
        if not self.size:
            return None
        width, _, height = self.size.partition("x")
        return int(height or width), int(width)


def parse_name(text: str) -> EncoderName:
    """Take an encoder's name apart.

    What stands behind the last slash is levels if it consists of names of levels, else part of the ID, which may hold
    slashes itself. A folder that is called like a level is named with its levels behind it: "sam2:models/low/low".

    Raises:
        SettingsError: If the text has another form, or names levels that the kind does not have.
    """
    kind, colon, rest = text.partition(":") if isinstance(text, str) else ("", "", "")
    if not colon or kind not in LEVELS or not rest.strip("/ "):
        raise SettingsError(f"encoder {text!r} is not understood, expected {FORMS}")
    model, slash, last = rest.rpartition("/")
    one = LEVELS[kind][0]
    found = re.fullmatch(rf"((?:{one})(?:\+(?:{one}))*)(?:@([0-9]{{1,4}}(?:x[0-9]{{1,4}})?))?", last) if model else None
    if found is None:
        _refuse_unknown_levels(text, kind, model, last if slash else "")
        return EncoderName(kind, rest.rstrip("/"))
    levels = tuple(found[1].split("+"))
    if len(set(levels)) != len(levels):
        raise SettingsError(f"encoder {text!r} names a level twice: name each once")
    name = EncoderName(kind, model.rstrip("/"), levels, found[2] or "")
    if name.image_size is not None and not all(1 <= side <= MAX_IMAGE_SIZE for side in name.image_size):
        raise SettingsError(f"encoder {text!r}: sides may be 1 to {MAX_IMAGE_SIZE} pixels")
    return name


def _refuse_unknown_levels(text: str, kind: str, model: str, last: str) -> None:
    """Raise where the part behind the last slash can only be meant as levels: `model` needs nothing behind it."""
    is_hub_id = re.fullmatch(r"[\w-][\w.-]*/[\w.@-]+", model) is not None and not Path(f"{model}/{last}").exists()
    if last and (model in NAMES_WITHOUT_SLASH or is_hub_id):
        raise SettingsError(
            f"encoder {text!r}: {last} names no levels of {kind}, expected {LEVELS[kind][1]}, joined by +, with @SIZE "
            "behind them if wanted"
        )


def fingerprint(location: ModelLocation, decisive: Mapping[str, object]) -> str:
    """Return 16 hexadecimal digits of the SHA-256 over a model's files and whatever else decides its features.

    Args:
        location: Its config.json and weights are read.
        decisive: What JSON can hold: levels, input size, preprocessing.
    """
    content = [list(location.sha256().values()), dict(decisive)]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
