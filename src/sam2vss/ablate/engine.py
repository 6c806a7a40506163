"""One SAM 2 network, and the trackers of all points of a grid around it."""

from dataclasses import dataclass
from pathlib import Path

from ..errors import SettingsError
from ..sam2.finder import MaskFinder
from ..sam2.loading import find_sam2, load_sam2
from ..sam2.model import Sam2Network
from ..sam2.propagate import Propagator
from ..sam2.savings import Savings
from ..sam2.tracker import NANO_FOLDER, Sam2Tracker, choose_propagator, chunk_for
from .frame_cache import FrameCache
from .grid import Point


@dataclass(frozen=True, eq=False)
class Engine:
    """A network, and how many objects go through it at once.

    Attributes:
        network: SAM 2 at one size in one number format.
        knows_clicks_only: It was trained with clicks alone, so mode prompt shows it no boxes and masks.
        chunk: Objects propagated at once. With 1, what becomes of an object does not depend on which others are there,
            to the last bit; larger chunks round otherwise by some 1e-6 of a logit.
    """

    network: Sam2Network
    knows_clicks_only: bool = False
    chunk: int = 1

    @classmethod
    def load(
        cls, sam2: str | Path, device: str, dtype: str, image_size: tuple[int, int] | None, chunk: int | None = None
    ) -> "Engine":
        """Load weights onto a device.

        Args:
            sam2: As in `Refiner.from_pretrained`.
            device: Name of a torch device.
            dtype: "float32", "bfloat16" or "float16".
            image_size: (height, width) that frames are stretched to; None: the model's own.
            chunk: Objects at once; None takes 1 on a CPU, where more gain little, and the tracker's choice elsewhere.

        Raises:
            WeightsError: If the weights cannot be found or loaded.
            SettingsError: If the image size or the chunk cannot be used.
        """
        if chunk is not None and chunk < 1:
            raise SettingsError(f"the chunk is {chunk}, expected at least 1 object at once")
        location = find_sam2(sam2)
        network = load_sam2(location, image_size=image_size, device=device, dtype=dtype)
        if chunk is None:
            chunk = 1 if network.device.type == "cpu" else chunk_for(network)
        return cls(network, location.path == NANO_FOLDER, chunk)

    def finder(self, point: Point, cache: FrameCache) -> MaskFinder:
        """Return what finds the automatic masks of a point."""
        return MaskFinder(
            self.network,
            points=point.points,
            pred_iou=point.pred_iou,
            stability=point.stability,
            stability_offset=point.stability_offset,
            box_nms=point.box_nms,
            min_area=point.min_mask_area,
            crop_layers=point.crop_layers,
            propose=cache.propose,
        )

    def tracker(self, point: Point, cache: FrameCache) -> Sam2Tracker:
        """Return the tracker of a point, as a run of its own has it but for what the cache remembers."""
        return Sam2Tracker(
            self.finder(point, cache),
            point.mode,
            direction=point.direction,
            discover=point.discover,
            match_every=point.match_every,
            knows_clicks_only=self.knows_clicks_only,
            savings=savings_of(point),
            chunk=self.chunk,
            encode=cache.encode,
        )

    def propagator(self, mode: str) -> Propagator:
        """Return what follows objects that do not see one another: modes exact and prompt."""
        return choose_propagator(self.network, mode, self.chunk, self.knows_clicks_only)


def savings_of(point: Point) -> Savings:
    """Return which masks of a first frame a point follows."""
    return Savings(max_masklets=point.max_masklets, contained=point.drop_contained, settled=point.skip_settled)
