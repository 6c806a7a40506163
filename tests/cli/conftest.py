"""What the tests of commands share: the command itself, and a small rendered data set with networks trained on it."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import toy
from sam2vss import cli
from sam2vss.datasets.synthetic import LABEL_SPACE, VALIDATION_SEEDS, export_vspw

ENCODER = "segmenter:segformer-nano/fused"


@dataclass(frozen=True)
class Answer:
    """What a command gave back: exit code, standard output, standard error."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        """Both streams without the breaks of lines."""
        return " ".join((self.out + self.err).split())

    @property
    def message(self) -> str:
        """The error without the breaks of lines; exit code 2, and no traceback."""
        assert self.code == 2, self.text
        assert "Traceback" not in self.err + self.out
        return " ".join(self.err.split())


Command = Callable[..., Answer]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs `sam2vss ...` in this process."""

    def run(*words: object) -> Answer:
        capsys.readouterr()
        code = cli.run([str(word) for word in words])
        return Answer(code, *capsys.readouterr())

    return run


@dataclass(frozen=True)
class Street:
    """A rendered data set and what was made of it; not to be changed.

    Attributes:
        root: Two clips of four frames with truth and a list "train".
        base: Base labels of both, a third of them wrong, with a label set.
        classifier: Trained on them, with base votes.
        fusion: Trained on them, for any label set.
    """

    root: Path
    base: Path
    classifier: Path
    fusion: Path

    @property
    def clip(self) -> Path:
        """The pictures of the first clip in a folder of its name."""
        return self.base.parent / "clips" / self.names[0]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple((self.root / "train.txt").read_text().split())

    @property
    def how(self) -> tuple[object, ...]:
        """Options that give masklets quickly."""
        return ("--tracker", "superpixel", "--window", 2)


@pytest.fixture(scope="session")
def street(tmp_path_factory) -> Street:
    place = tmp_path_factory.mktemp("street")
    root = place / "data"
    with toy.no_waiting_for_the_disk():
        export_vspw(root, VALIDATION_SEEDS[:2], 4, (60, 80), "train")
        for file in sorted((root / "data").rglob("mask/*.png")):
            labels = np.asarray(Image.open(file))
            rng = np.random.default_rng(int(labels.sum()))
            shift = rng.integers(1, LABEL_SPACE.num_classes, labels.shape)
            wrong = (labels + shift) % LABEL_SPACE.num_classes
            target = place / "base" / file.parents[1].name / file.name
            target.parent.mkdir(parents=True, exist_ok=True)
            is_wrong = (rng.random(labels.shape) < 0.33) & (labels < LABEL_SPACE.num_classes)
            Image.fromarray(np.where(is_wrong, wrong, labels).astype(np.uint8)).save(target)
        shutil.copytree(root / "data" / "synthetic_100000" / "origin", place / "clips" / "synthetic_100000")
        (place / "base" / "label_set.json").write_bytes((root / "label_set.json").read_bytes())
        made = Street(root, place / "base", place / "classifier", place / "fusion")
        words = ["--data", root, "--labels", made.base, *made.how]
        for name, more in (("classifier", ["--encoder", ENCODER, "--epochs", 12, "--hidden", 16]), ("fusion", [])):
            torch.set_num_threads(1)
            call = ["train", name, "--out", place / name, *words, *more, *([] if more else ["--epochs", 3])]
            assert cli.run([str(word) for word in call]) == 0
    return made


@pytest.fixture(autouse=True)
def _fast_disk():
    with toy.no_waiting_for_the_disk():
        yield
