"""What the comparisons with official networks share: equal weights on both sides, and a row of the table."""

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from sam2vss.segmenters.vss.segformer import VssModel

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from named_weights import fill_by_name
from named_weights import golden_clip as golden_clip  # for the families


@dataclass(frozen=True)
class Row:
    """One compared result; `equal` is the share of cells with the same class, None where there are no classes."""

    model: str
    size: str  # of the encoder
    what: str  # input and result, such as "480x864 clip"
    difference: float  # largest, of logits or of a loss
    largest: float  # absolute value on the official side
    equal: float | None

    def __str__(self) -> str:
        equal = "-" if self.equal is None else "all" if self.equal == 1 else f"{100 * self.equal:.3f} %"
        return f"{self.model:10} {self.size:4} {self.what:28} {self.difference:10.1e} {self.largest:9.2f} {equal:>9}"


HEADER = f"{'model':10} {'size':4} {'what':28} {'difference':>10} {'largest':>9} {'argmax =':>9}"


class OfficialModel(nn.Module):
    """An official encoder and head under the names that they have in a checkpoint."""

    def __init__(self, backbone: nn.Module, decode_head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.decode_head = decode_head


def share_weights(
    official: OfficialModel, own: VssModel, unused: Sequence[str], enlarge: tuple[str, float] | None = None
) -> None:
    """Fill the official network by name, and ours from its checkpoint, strictly but for keys that match `unused`.

    Args:
        official: Gets the weights first.
        own: Gets what the official network then has.
        unused: Regular expressions of keys that ours does without.
        enlarge: A pattern of keys, and a factor for their values.
    """
    fill_by_name(official)
    state = official.state_dict()
    if enlarge:
        for key in state:
            if is_any(key, enlarge[:1]):
                state[key].mul_(enlarge[1])
    own.load_state_dict({key: value for key, value in state.items() if not is_any(key, unused)})
    own.eval()


def is_any(key: str, patterns: Sequence[str]) -> bool:
    return any(re.fullmatch(pattern, key) for pattern in patterns)


def compare(model: str, size: str, what: str, own: Tensor, official: Tensor) -> Row:
    """Compare logits (1, C, h, w)."""
    assert own.shape == official.shape
    equal = (own.argmax(dim=1) == official.argmax(dim=1)).double().mean().item()
    return Row(model, size, what, largest_difference(own, official), official.abs().max().item(), equal)


def compare_values(model: str, size: str, what: str, own: Tensor, official: Tensor) -> Row:
    """Compare anything without classes, such as a loss."""
    return Row(model, size, what, largest_difference(own, official), official.abs().max().item(), None)


def largest_difference(own: Tensor, official: Tensor) -> float:
    return (own - official).abs().max().item()


def random_labels(num_frames: int, height: int, width: int, num_classes: int) -> Tensor:
    """Labels int64 (T, H, W) with some ignored pixels, drawn with a fixed seed."""
    labels = torch.randint(num_classes, (num_frames, height, width), generator=torch.Generator().manual_seed(0))
    labels[:, : height // 4] = 255
    return labels


def write_keys(folder: Path, name: str, model: nn.Module, beside: nn.Module | None = None) -> None:
    """Write the name and shape of every tensor of a checkpoint, as the tests read them, but those of another."""
    folder.mkdir(parents=True, exist_ok=True)
    known = beside.state_dict() if beside else {}
    new = {key: value.shape for key, value in model.state_dict().items() if key not in known}
    lines = [f"{key} {'x'.join(map(str, shape)) or '-'}\n" for key, shape in new.items()]
    (folder / f"{name}.txt").write_text("".join(lines))
