"""Base labels under another label set with the same classes: its colours and raw ids count for what is written."""

from collections.abc import Sequence

from ..interfaces import BaseLabelSource, FollowsFrames
from ..types import BaseLabels, Frame, LabelSpace


class LabelsInSpace:
    """A `BaseLabelSource` that gives another one's train ids as classes of `label_space`.

    Nothing is converted: the classes must be the same in the same order (`segmentor.check_classes`). Raw ids of files
    are still read by the other source's own label set.
    """

    def __init__(self, source: BaseLabelSource, label_space: LabelSpace) -> None:
        self.source = source
        self.label_space = label_space

    def check(
        self,
        clip_name: str,
        frame_names: Sequence[str] | None = None,
        num_frames: int | None = None,
        frame_size: tuple[int, int] | None = None,
    ) -> str:
        """Ask the other source."""
        return self.source.check(clip_name, frame_names, num_frames, frame_size)

    def labels_for(self, clip_name: str, frames: Sequence[Frame]) -> BaseLabels:
        """Return the other source's train ids."""
        return self.source.labels_for(clip_name, frames)

    def pass_over(self, clip_name: str, frames: Sequence[Frame]) -> None:
        """Show frames to the other source, if it looks at them."""
        if isinstance(self.source, FollowsFrames):
            self.source.pass_over(clip_name, frames)

    def finish(self, clip_name: str, num_frames: int) -> None:
        """Tell the other source."""
        self.source.finish(clip_name, num_frames)
