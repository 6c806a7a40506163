"""Made-up panoptic clips, drawn from integers alone, so that they are the same everywhere."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

NUM_CLASSES = 124  # VIPSeg's, since its driver of STQ knows no other number
THINGS = (
    2, 4, 8, 10, 41, 43, 44, 46, 47, 48, 49, 50, 51, 52, 54, 55, 56, 60, 61, 62, 63, 64, 65, 72, 74, 76, 77, 78, 79, 82,
    83, 84, 85, 86, 87, 88, 89, 90, 91, 92, 95, 96, 97, 99, 100, 101, 102, 106, 107, 108, 109, 114, 115, 116, 117, 118,
    122, 123,
)  # fmt: skip
IS_THING = [i in THINGS for i in range(NUM_CLASSES)]
VOID = 255
WALL, FLOOR, SKY, CAR, PERSON, DOG, TRAIN = 0, 13, 28, 48, 60, 62, 123
SIZE = (24, 32)


@dataclass(frozen=True)
class Box:
    """A rectangle that moves: corner and step per frame in pixels, from one frame on up to another."""

    category: int
    number: int
    left: int
    top: int
    width: int
    height: int
    step: int = 0
    first: int = 0
    end: int = 99

    def draw(self, classes: np.ndarray, numbers: np.ndarray, t: int) -> None:
        if self.first <= t < self.end:
            left = self.left + self.step * t
            place = slice(self.top, self.top + self.height), slice(max(0, left), max(0, left + self.width))
            classes[place], numbers[place] = self.category, self.number


@dataclass(frozen=True)
class MadeUpClip:
    """Predicted and true classes and instance numbers, each (T, H, W)."""

    predicted_classes: np.ndarray
    predicted_numbers: np.ndarray
    true_classes: np.ndarray
    true_numbers: np.ndarray

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        return self.predicted_classes, self.predicted_numbers, self.true_classes, self.true_numbers


def draw(frames: int, boxes: list[Box], ground: int = WALL) -> tuple[np.ndarray, np.ndarray]:
    classes = np.full((frames, *SIZE), ground, np.uint8)
    numbers = np.zeros((frames, *SIZE), np.int32)
    for t in range(frames):
        for box in boxes:
            box.draw(classes[t], numbers[t], t)
    return classes, numbers


def make(frames: int, truth: list[Box], prediction: list[Box], ground: int = WALL) -> MadeUpClip:
    return MadeUpClip(*draw(frames, prediction, ground), *draw(frames, truth, ground))


GROUND = [Box(FLOOR, 0, 0, 16, 32, 8), Box(SKY, 0, 0, 0, 32, 5)]
STREET = [*GROUND, Box(CAR, 1, 1, 8, 9, 6, step=1), Box(CAR, 2, 22, 9, 8, 6, step=-1), Box(PERSON, 1, 14, 10, 4, 9)]
VOID_EDGE = Box(VOID, 0, 28, 0, 4, 24)

MADE_UP: dict[str, dict[str, MadeUpClip]] = {
    # boxes one pixel off, a car that changes its number half-way, a dog for a person, and a train that is not there
    "street": {
        "a": make(
            10,
            [*STREET, VOID_EDGE],
            [
                Box(FLOOR, 0, 0, 15, 32, 9),
                Box(SKY, 0, 0, 0, 32, 5),
                Box(CAR, 7, 2, 8, 9, 6, step=1, end=6),
                Box(CAR, 8, 2, 8, 9, 6, step=1, first=6),
                Box(CAR, 2, 23, 9, 8, 6, step=-1),
                Box(DOG, 1, 14, 10, 4, 4),
                Box(PERSON, 5, 14, 14, 4, 5),
                Box(TRAIN, 1, 29, 2, 3, 20),
                Box(TRAIN, 2, 3, 0, 3, 4, first=3, end=5),
            ],
        ),
        "b": make(9, STREET, [*STREET[:3], Box(PERSON, 1, 15, 10, 4, 9)]),
    },
    # a person in the crowd is no error, a dog there is; crowd of no use where there is none
    "crowd": {
        "a": make(
            8,
            [*STREET, Box(PERSON, 0, 2, 14, 8, 8), Box(DOG, 0, 24, 14, 6, 6, end=4)],
            [*STREET, Box(PERSON, 3, 2, 14, 4, 8), Box(PERSON, 4, 7, 15, 6, 6), Box(DOG, 3, 2, 20, 8, 4)],
        ),
    },
    # things alone in the first frames: VIPSeg's driver takes the first of them for a crowd
    "things first": {
        "a": make(
            9,
            [Box(CAR, 1, 0, 0, 16, 24), Box(PERSON, 2, 16, 0, 16, 24), Box(SKY, 0, 0, 0, 32, 4, first=3)],
            [Box(CAR, 1, 0, 0, 14, 24), Box(PERSON, 2, 14, 0, 18, 24, end=5), Box(PERSON, 3, 14, 0, 18, 24, first=5)],
            ground=VOID,
        ),
        "b": make(8, STREET, STREET),
    },
    # clips shorter than the windows, one of a single frame
    "short": {
        "one": make(1, STREET, [*STREET, Box(DOG, 1, 0, 0, 5, 5)]),
        "three": make(3, STREET, [*GROUND, Box(CAR, 1, 1, 8, 9, 6), Box(CAR, 2, 22, 9, 8, 6), STREET[4]]),
        "seven": make(7, STREET, [*STREET[:3], Box(PERSON, 1, 14, 11, 4, 8), Box(CAR, 2, 20, 9, 8, 6, step=-1)]),
        "ten": make(10, STREET, STREET[:4]),
    },
    # pixels without a predicted class
    "unlabelled": {
        "a": make(8, [*STREET, VOID_EDGE], [*STREET, Box(VOID, 0, 0, 20, 32, 4), Box(VOID, 0, 26, 0, 6, 9)])
    },
}


def recorded_clips(data: Path) -> dict[str, MadeUpClip]:
    """Table-top recordings with a made-up prediction: two frames late, one number switched, one object misnamed."""
    clips = {}
    for folder in sorted((data / "ycbvideo" / "data").iterdir()):
        stored = np.stack([np.array(Image.open(path)) for path in sorted((folder / "mask").glob("*.png"))])
        objects = np.unique(stored[stored > 0])
        categories = np.array([WALL, *THINGS[: stored.max()]], np.uint8)
        late = stored[np.maximum(np.arange(len(stored)) - 2, 0)]
        predicted_classes, predicted_numbers = categories[late], (late > 0).astype(np.int32)
        predicted_numbers[len(stored) // 2 :][late[len(stored) // 2 :] == objects[0]] = 2
        predicted_classes[-5:][late[-5:] == objects[-1]] = TRAIN
        clips[folder.name] = MadeUpClip(
            predicted_classes, predicted_numbers, categories[stored], (stored > 0).astype(np.int32)
        )
    return clips
