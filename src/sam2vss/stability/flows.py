"""What finds optical flow between two frames, under the name that scores along it carry."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from ..errors import SettingsError
from ..flow import backward_flow, to_grey

FlowFunction = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class FlowMethod:
    """Optical flow under a name, which all scores that depend on it carry.

    Attributes:
        name: Short name, e.g. "raft"; part of the names of scores.
        find: Takes a frame and the next one, uint8 RGB (H, W, 3) each, and returns floats (H, W, 2): pixel (x, y) of
            the first is at (x + flow[y, x, 0], y + flow[y, x, 1]) in the second. Not finite: no flow there.
    """

    name: str
    find: FlowFunction


def find_dis_flow(image: np.ndarray, next_image: np.ndarray) -> np.ndarray:
    """Find flow from a frame to the next one with OpenCV's DIS, float32 (H, W, 2)."""
    return backward_flow(to_grey(image), to_grey(next_image))  # where the pixels of the first are in the second


DIS: Final = FlowMethod("dis", find_dis_flow)


def find_flow_method(name: str) -> FlowMethod | None:
    """Return the flow of that name, None for "none".

    Raises:
        SettingsError: If the name is unknown.
    """
    methods: dict[str, FlowMethod | None] = {"dis": DIS, "none": None}
    if name not in methods:
        raise SettingsError(f"flow {name!r} is unknown, expected {' or '.join(methods)}")
    return methods[name]
