"""Fast mode: automatic masks on every frame (or every k-th), associated over time into masklets.

No memory attention, so a frame costs about the same whatever the number of objects; `propagate.MemoryPropagator` is
the exact mode. What a mask must have to be a track's next one is in `association.py`.
"""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from .association import MatchRule, appearances, assign, mask_overlaps, match_scores
from .candidates import Candidates, Proposer, Selection, find_candidates, mask_areas, stability_score
from .model import NO_OBJECT_LOGIT, FrameFeatures, Sam2Network
from .prompts import PromptPropagator, given_tracks, presence_score
from .propagate import Tracks, joined
from .track_states import TrackStates


@dataclass(frozen=True)
class MatchSettings:
    """How tracks live. All ours: set by hand and compared with a few others on synthetic validation clips.

    What a new object needs (`min_new_share`, `min_new_area`) was not varied.

    Attributes:
        rule: Which candidate can be which track's next mask.
        keep_pred_iou: Predicted IoU above which a candidate can continue a track. Lower than what opens one, so that a
            track outlives weak frames (as in ByteTrack, arXiv 2110.06864).
        keep_stability: The same for the stability score, taken at the logits' own size.
        rescue: Follow tracks that found no candidate as in frames without automatic masks, where that gives a similar
            mask: objects between the grid's points, for example.
        patience: Frames that a track may stay unseen before it is given up. No track is given up before it was looked
            for once, however rare automatic masks are.
        inertia: Share of the old velocity and appearance that a new sighting leaves, [0, 1].
        min_new_share: Share of a candidate's cells outside all tracks that it needs to open a track.
        min_new_area: The same cells as share of the picture.
    """

    rule: MatchRule = field(default_factory=MatchRule)
    keep_pred_iou: float = 0.4
    keep_stability: float = 0.6
    rescue: bool = True
    patience: int = 4
    inertia: float = 0.5
    min_new_share: float = 0.5
    min_new_area: float = 0.002


class FrameMatcher:
    """Follows objects by finding automatic masks anew and matching them with the masks of the frames before.

    Tracks are matched with all candidates that pass the weaker filters, before NMS: where NMS would prefer the whole
    in one frame and the part in the next, both stay in reach, and a track keeps what it began with. A track's mask is
    the logits of its candidate, and so is its predicted IoU. In frames between, and for tracks left without candidate,
    `between` follows them.

    Args:
        network: The model.
        points: Grid of points x points prompts.
        pred_iou: Predicted-IoU threshold of new tracks.
        stability: Stability-score threshold of new tracks.
        stability_offset: Offset of the stability score, in logits.
        box_nms: Box IoU above which the worse of two new tracks is dropped.
        every: Find automatic masks on every so many frames only.
        chunk: Objects prompted at once, where `between` is not given.
        max_objects: No new tracks are opened beyond so many, lost ones included; None: no limit.
        between: How objects are followed without automatic masks; default: a click on each, the answer that overlaps
            its mask most, which served best with the bundled weights.
        settings: Everything else.
        find: Gives the candidates of a frame.
    """

    def __init__(
        self,
        network: Sam2Network,
        points: int = 16,
        pred_iou: float = 0.6,
        stability: float = 0.8,
        stability_offset: float = 0.9,
        box_nms: float = 0.7,
        every: int = 1,
        chunk: int = 16,
        max_objects: int | None = None,
        between: PromptPropagator | None = None,
        settings: MatchSettings | None = None,
        find: Proposer = find_candidates,
    ) -> None:
        self.network = network
        self.points = points
        self.pred_iou = pred_iou
        self.stability = stability
        self.stability_offset = stability_offset
        self.box_nms = box_nms
        self.every = every
        self.max_objects = max_objects
        self.between = between or PromptPropagator.by_clicks(network, chunk)
        self.settings = settings or MatchSettings()
        self.find = find
        self.states: TrackStates | None = None
        self.size = (0, 0)
        self.time = 0

    @torch.inference_mode()
    def start(self, features: FrameFeatures, masks: Tensor) -> Tracks:
        """Begin with objects of the first frame, bool (N, H, W), N >= 0, and forget all before.

        (H, W) must be the size of the frames: it scales the grid's points and the masks of new objects.
        """
        self.size = (masks.shape[1], masks.shape[2])
        self.time = 0
        self.states = self._born(features, masks)
        return given_tracks(self.states.logits)

    @torch.inference_mode()
    def add(self, features: FrameFeatures, masks: Tensor) -> None:
        """Append objects, bool (K, H, W), first seen in the frame of the last `start` or `step`."""
        assert self.states is not None, "start() comes first"
        self.states = self.states.joined(self._born(features, masks))

    @torch.inference_mode()
    def step(self, features: FrameFeatures) -> Tracks:
        """Find every object again in the next frame, and objects that are new in it.

        Objects that are not found have empty masks; they can be found again within the patience, in their old rows.
        """
        assert self.states is not None, "start() comes first"
        self.time += 1
        states = self.states
        if self.time % self.every:
            tracks = self._prompted(features, states, torch.nonzero(states.missing == 0)[:, 0])
            self.states = states.seen(tracks.logits, features.low, self.settings.inertia)
            return tracks
        alive = torch.nonzero(states.missing < self._never)[:, 0]
        predicted = states[alive].predicted_masks()
        candidates = self.find(self.network, features, self.size, self.points)
        tracks = self._matched(features, states, alive, predicted, candidates)
        self.states = states.seen(tracks.logits, features.low, self.settings.inertia)
        entered = self._entered(candidates, tracks.logits)
        if not len(entered):
            return tracks
        new = candidates.logits[entered.rows].float()
        self.states = self.states.joined(TrackStates.born(new, features.low, self._never))
        return replace(joined([tracks, _tracks(new, entered.predicted_iou)]), entered=entered)

    @property
    def _never(self) -> int:
        """So many frames missing, a track is given up."""
        return max(self.settings.patience + 1, self.every)

    def _born(self, features: FrameFeatures, masks: Tensor) -> TrackStates:
        _, logits = self.network.prompt_masks(masks.to(self.network.device))
        return TrackStates.born(logits, features.low, self._never)

    def _prompted(self, features: FrameFeatures, states: TrackStates, rows: Tensor) -> Tracks:
        """Some rows of all N, followed by prompts; the others are empty."""
        followed = self.between.follow(features, states.logits[rows])
        logits, quality = _nothing_like(states.logits)
        logits[rows], quality[rows] = followed.logits, followed.predicted_iou
        return _tracks(logits, quality)

    def _matched(
        self, features: FrameFeatures, states: TrackStates, alive: Tensor, predicted: Tensor, candidates: Candidates
    ) -> Tracks:
        """All N tracks in this frame, empty where a track has no mask."""
        settings, live = self.settings, states[alive]
        rows = torch.nonzero(candidates.iou > settings.keep_pred_iou)[:, 0]
        rows = rows[stability_score(candidates.logits[rows], self.stability_offset) >= settings.keep_stability]
        pool, pool_iou = candidates.logits[rows].float(), candidates.iou[rows]
        masks = pool > 0
        # an object may have gone on as before or have stopped; boxes jitter, so the motion alone would mislead
        overlap = torch.maximum(mask_overlaps(predicted, masks), mask_overlaps(live.logits > 0, masks))
        likeness = live.appearance @ appearances(masks, features.low).T
        chosen = assign(match_scores(overlap, likeness, pool_iou, live.missing > 0, settings.rule))
        is_found = chosen >= 0
        matched = torch.nonzero(is_found)[:, 0]  # once: a GPU counts a mask each time it is used
        logits, quality = _nothing_like(states.logits)
        logits[alive[matched]] = pool[chosen[matched]]
        quality[alive[matched]] = pool_iou[chosen[matched]].float()
        left = alive[~is_found & (live.missing == 0)]
        if settings.rescue and len(left):
            followed = self.between.follow(features, states.logits[left])
            overlap = mask_overlaps(followed.logits > 0, states.logits[left] > 0).diagonal()
            is_similar = overlap >= settings.rule.min_overlap
            logits[left] = torch.where(is_similar[:, None, None], followed.logits, NO_OBJECT_LOGIT)
            quality[left] = torch.where(is_similar, followed.predicted_iou, 0.0)
        return _tracks(logits, quality)

    def _entered(self, candidates: Candidates, logits: Tensor) -> Selection:
        """Candidates good enough to open a track that lie mostly outside all tracks' masks (N, h, w)."""
        settings = self.settings
        is_bare = ~(logits > 0).any(0)
        rows = torch.nonzero(candidates.iou > self.pred_iou)[:, 0]
        masks = candidates.logits[rows] > 0
        new = mask_areas(masks & is_bare)
        is_new = (new > 0) & (new >= settings.min_new_share * mask_areas(masks))
        rows = rows[is_new & (new >= settings.min_new_area * is_bare.numel())]
        bare = replace(
            candidates, logits=candidates.logits[rows], iou=candidates.iou[rows], points=candidates.points[rows]
        )
        chosen = bare.select(self.pred_iou, self.stability, self.stability_offset, self.box_nms)
        places = len(chosen) if self.max_objects is None else max(0, self.max_objects - len(logits))
        return replace(chosen, rows=rows[chosen.rows])[:places]


def _tracks(logits: Tensor, predicted_iou: Tensor) -> Tracks:
    return Tracks(logits, presence_score(logits), predicted_iou.float())


def _nothing_like(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Empty masks and a quality of 0 for as many rows: (N, h, w) and float32 (N,)."""
    return torch.full_like(logits, NO_OBJECT_LOGIT), torch.zeros(len(logits), device=logits.device)
