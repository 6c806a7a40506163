"""EdgeTAM with a small image encoder of SAM 2's kind: the released one needs timm, and no test needs its weights."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from sam2vss.errors import SettingsError, WeightsError
from sam2vss.sam2 import memory as memory_module
from sam2vss.sam2.candidates import find_candidates
from sam2vss.sam2.compiled import CompiledNetwork
from sam2vss.sam2.cost import network_cost
from sam2vss.sam2.edgetam import EdgeTamNetwork, condense
from sam2vss.sam2.limits import tracking_memory
from sam2vss.sam2.match import FrameMatcher
from sam2vss.sam2.memory import MemoryBank
from sam2vss.sam2.model import FrameFeatures
from sam2vss.sam2.prompts import PromptPropagator
from sam2vss.sam2.propagate import MemoryPropagator, Tracks, best_of_three
from sam2vss.sam2.weights import load_network, outline_network
from tiny_sam2 import HIDDEN, first_masks, moving_frames, seeded_tensor, tiny_config

UNPLACED, WINDOWS = 12, 4  # latents; windows per side


def tiny_edgetam_config(image_size: int = 128, **changes: object) -> Any:
    """EdgeTAM's parts, each as small as it gets, with the encoder of `tiny_config`."""
    from transformers import EdgeTamVideoConfig
    from transformers.models.edgetam_video.configuration_edgetam_video import (
        EdgeTamVideoMaskDecoderConfig,
        EdgeTamVideoPromptEncoderConfig,
    )

    sam2: Any = tiny_config(image_size)
    shared = (
        *("memory_attention_hidden_size", "memory_attention_num_layers", "memory_attention_rope_feat_sizes"),
        *("memory_encoder_hidden_size", "mask_downsampler_embed_dim", "memory_fuser_embed_dim"),
        "memory_fuser_intermediate_dim",
    )
    options: dict[str, Any] = {
        "memory_attention_mlp_hidden_size": 128,
        "memory_attention_rope_k_sizes": [WINDOWS, WINDOWS],
        "perceiver_resampler_num_latents": UNPLACED,
        "perceiver_resampler_num_latents_2d": WINDOWS**2,
        **{name: getattr(sam2, name) for name in shared},
        **changes,
    }
    return EdgeTamVideoConfig(
        vision_config=sam2.vision_config,
        prompt_encoder_config=EdgeTamVideoPromptEncoderConfig(hidden_size=HIDDEN, image_size=image_size),
        mask_decoder_config=EdgeTamVideoMaskDecoderConfig(hidden_size=HIDDEN),
        image_size=image_size,
        **options,
    )


def tiny_edgetam(image_size: int = 128, object_score_bias: float = 0.0) -> EdgeTamNetwork:
    """Two objects' logits differ by 0.07 to 1.2 on average; over 20 frames rounding grows to 0.001."""
    from transformers import EdgeTamVideoModel

    model = EdgeTamVideoModel(tiny_edgetam_config(image_size)).eval()
    state = {name: seeded_tensor(name, tuple(tensor.shape)) for name, tensor in model.state_dict().items()}
    for name in state:
        if "cross_attn_image.o_proj" in name:  # condensed memories are normalised, so they weigh more than SAM 2's
            state[name] *= 0.25
    state["mask_decoder.pred_obj_score_head.proj_out.bias"] += object_score_bias
    model.load_state_dict(state)
    return EdgeTamNetwork(model)


class TransformersPropagator(MemoryPropagator):
    """Conditions as transformers' session does: best of three tokens, memory of the mask without a round trip."""

    def _condition(self, banks: list[MemoryBank], features: FrameFeatures, masks: Tensor) -> Tracks:
        network = self.network
        prompt, logits = network.prompt_masks(masks)
        has_mask = prompt.flatten(1).any(1)
        score = has_mask.float() * 20 - 10
        decoded = network.decode(features.low, features, network.no_points(len(masks)), network.embed_masks(prompt))
        pointer = network.object_pointer(best_of_three(decoded)[1], has_mask & (decoded.object_score > 0))
        memory = network.write_memory(features.low, prompt * 20 - 10, score, binarise=True)
        banks.append(MemoryBank(memory, pointer, network.num_memories, network.num_pointers))
        return Tracks(logits, score, has_mask.float())


def started_session(network: EdgeTamNetwork, pixels: Tensor, masks: Tensor) -> Any:
    from transformers.models.edgetam_video.modeling_edgetam_video import EdgeTamVideoInferenceSession

    height, width = network.input_size
    session = EdgeTamVideoInferenceSession(video=pixels, video_height=height, video_width=width, dtype=torch.float32)
    for row, prompt in enumerate(network.prompt_masks(masks)[0]):
        session.add_mask_inputs(session.obj_id_to_idx(row), 0, prompt[None, None])
        session.obj_with_new_inputs.append(row)
    return session


def keep_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep memories as transformers' session does, not in bfloat16 as Meta's predictor."""

    class Float32Torch:
        def __getattr__(self, name: str) -> object:
            return getattr(torch, "float32" if name == "bfloat16" else name)

    monkeypatch.setattr(memory_module, "torch", Float32Torch())


@pytest.fixture(scope="module")
def edgetam() -> EdgeTamNetwork:
    return tiny_edgetam()


@pytest.fixture(scope="module")
def edgetam_features(edgetam: EdgeTamNetwork) -> list[FrameFeatures]:
    with torch.inference_mode():
        return [edgetam.encode(edgetam.pixels(torch.from_numpy(frame)[None])) for frame in moving_frames(8)]


@pytest.fixture(scope="module")
def folder(edgetam: EdgeTamNetwork, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "edgetam"
    edgetam.model.save_pretrained(path)
    return path


@pytest.mark.parametrize("object_score_bias", [0.0, -0.45])  # with the second, objects vanish and come back
def test_eighteen_frames_are_those_of_transformers_session_object_by_object(
    object_score_bias: float, monkeypatch: pytest.MonkeyPatch
):
    """Measured: 0.0003 logits, while two objects differ by 0.1 on average or more."""
    keep_float32(monkeypatch)
    network, masks = tiny_edgetam(object_score_bias=object_score_bias), first_masks()[[0, 1, 3]]
    pixels = network.pixels(torch.from_numpy(moving_frames(18)))
    session = started_session(network, pixels, masks)
    propagator, num_hidden = TransformersPropagator(network, chunk=2), 0
    for time in range(18):
        with torch.inference_mode():
            theirs = network.model(session, frame_idx=time)
            features = network.encode(pixels[time : time + 1])
        tracks = propagator.step(features) if time else propagator.start(features, masks)
        torch.testing.assert_close(tracks.logits, theirs.pred_masks[:, 0], atol=1e-3, rtol=0)
        torch.testing.assert_close(tracks.object_score, theirs.object_score_logits.flatten(), atol=1e-3, rtol=0)
        num_hidden += int((tracks.object_score <= 0).sum()) if time else 0
    assert object_score_bias or (tracks.logits[0] - tracks.logits[1]).abs().mean() > 0.05
    assert (5 < num_hidden < 46) == (object_score_bias < 0)


@pytest.mark.parametrize("image_size", [64, 128, 192])
def test_memories_written_together_are_those_of_transformers_one_by_one(image_size: int):
    edgetam = tiny_edgetam(image_size)
    generator = torch.Generator().manual_seed(1)
    grid, count = image_size // 16, 3
    low = torch.randn(1, HIDDEN, grid, grid, generator=generator)
    logits = 5 * torch.randn(count, 4 * grid, 4 * grid, generator=generator)
    score = torch.tensor([1.0, -1.0, 0.0])

    with torch.inference_mode():
        found = edgetam.write_memory(low, logits, score, binarise=False)
        positions = edgetam.memory_positions((grid, grid), [0], [0])[: UNPLACED + WINDOWS**2]
        for row in range(count):
            enlarged = torch.nn.functional.interpolate(logits[None, row : row + 1], size=image_size, mode="bilinear")
            expected, places = edgetam.model._encode_new_memory(
                low.flatten(2).permute(2, 0, 1), enlarged, score[row].reshape(1, 1), is_mask_from_pts=False
            )
            torch.testing.assert_close(found[row : row + 1], expected, atol=2e-5, rtol=0)
            age = edgetam.model.memory_temporal_positional_encoding[-1, 0]
            torch.testing.assert_close(positions, places[0] + age, atol=1e-6, rtol=0)
    assert (found[0] - found[1]).abs().mean() > 0.01


def test_memory_attention_is_that_of_transformers(edgetam: EdgeTamNetwork):
    """Three memories and two pointers; objects one by one, as transformers' session runs them."""
    generator = torch.Generator().manual_seed(2)
    tokens = UNPLACED + WINDOWS**2
    low = torch.randn(1, HIDDEN, 8, 8, generator=generator)
    spatial = torch.randn(2, 3, tokens, 64, generator=generator)
    pointers = torch.randn(2, 2, HIDDEN, generator=generator)

    with torch.inference_mode():
        found = edgetam.attend(low, spatial, [0, 2, 1], pointers, [5, 1])
        positions = edgetam.memory_positions((8, 8), [0, 2, 1], [5, 1])
        places = edgetam.model.vision_encoder.neck.position_encoding(low.shape, low.device, low.dtype)
        for row in range(2):
            memory = torch.cat([spatial[row].flatten(0, 1), pointers[row].reshape(-1, 64)])
            expected = edgetam.model.memory_attention(
                current_vision_features=low.flatten(2).permute(2, 0, 1),
                memory=memory[:, None],
                current_vision_position_embeddings=places.flatten(2).permute(2, 0, 1),
                memory_posision_embeddings=positions[:, None],
                num_object_pointer_tokens=2 * HIDDEN // 64,
                num_spatial_memory_tokens=3,
            )
            expected = expected.reshape(64, HIDDEN).T.unflatten(1, (8, 8))
            torch.testing.assert_close(found[row], expected, atol=1e-5, rtol=0)
    assert (found[0] - found[1]).abs().mean() > 0.05


def test_each_latent_with_a_place_sees_the_cells_of_its_window_alone_also_in_oblong_frames(edgetam: EdgeTamNetwork):
    """8 x 16 cells in 4 x 4 windows of 2 x 4 cells: the cell in row 5, column 9 belongs to window row 2, column 2."""
    resampler, generator = edgetam.model.spatial_perceiver, torch.Generator().manual_seed(3)
    cells, places = torch.randn(1, 8 * 16, 64, generator=generator), torch.zeros(1, 8 * 16, 64)
    changed = cells.clone()
    changed[0, 5 * 16 + 9] += 1

    with torch.inference_mode():
        before, after = (condense(resampler, memory, places, (8, 16)) for memory in (cells, changed))

    differing = (before != after).any(2)[0]
    assert differing[:UNPLACED].all()
    assert differing[UNPLACED:].nonzero().flatten().tolist() == [2 * WINDOWS + 2]


@pytest.mark.parametrize("chunk", [1, 3])
def test_results_do_not_depend_on_the_chunk(edgetam: EdgeTamNetwork, edgetam_features: list[FrameFeatures], chunk: int):
    whole, parts = MemoryPropagator(edgetam, 16), MemoryPropagator(edgetam, chunk)
    whole.start(edgetam_features[0], first_masks())
    parts.start(edgetam_features[0], first_masks())
    for frame in edgetam_features[1:]:
        torch.testing.assert_close(whole.step(frame).logits, parts.step(frame).logits, atol=2e-3, rtol=0)
    assert whole.banks is not None
    assert whole.banks[0].spatial.shape == (4, 7, UNPLACED + WINDOWS**2, 64)


def test_masks_are_found_matched_and_prompted_as_with_any_network(
    edgetam: EdgeTamNetwork, edgetam_features: list[FrameFeatures]
):
    frames, masks = edgetam_features, first_masks()
    found = find_candidates(edgetam, frames[0], (90, 130), points_per_side=4)
    assert found.logits.shape[-2:] == (32, 32)
    assert len(found.select(0.2, 0.2, 0.9, 0.7)) > 0
    for propagator in (PromptPropagator(edgetam), FrameMatcher(edgetam, 4, 0.5, 0.0, 1.0, 0.7)):
        propagator.start(frames[0], masks[:2])
        tracks = propagator.step(frames[1])
        assert tracks.logits.shape[1:] == (32, 32)
        assert len(tracks.object_score) == len(tracks.logits) >= 2


def test_bfloat16_networks_follow_objects_too(edgetam_features: list[FrameFeatures]):
    network = tiny_edgetam()
    network.model.bfloat16()
    frames = [FrameFeatures(*(getattr(f, n).bfloat16() for n in ("high", "mid", "low"))) for f in edgetam_features[:2]]
    propagator = MemoryPropagator(network)
    propagator.start(frames[0], first_masks())
    logits = propagator.step(frames[1]).logits

    assert logits.dtype == torch.bfloat16
    exact = MemoryPropagator(tiny_edgetam())
    exact.start(edgetam_features[0], first_masks())
    expected = exact.step(edgetam_features[1]).logits
    assert ((logits > 0) == (expected > 0)).float().mean() > 0.9  # measured: 0.99
    assert (logits - expected).abs().mean() < 0.1 * expected.abs().mean()  # measured: 0.06


def test_other_sizes_hold_whole_cells_for_each_window_and_may_be_oblong():
    network = tiny_edgetam()
    with pytest.raises(SettingsError, match=r"each side must be a multiple of 64\. The nearest that fits is 128"):
        network.set_image_size(96)
    network.set_image_size((128, 192))
    with torch.inference_mode():
        features = network.encode(network.pixels(torch.from_numpy(moving_frames(2))))
    propagator = MemoryPropagator(network)
    propagator.start(features[:1], first_masks())
    assert propagator.step(features[1:]).logits.shape == (4, 32, 48)


def test_latents_that_are_no_square_are_refused():
    from transformers import EdgeTamVideoModel

    config = tiny_edgetam_config(memory_attention_rope_k_sizes=[2, 8])
    with (
        torch.device("meta"),
        pytest.raises(WeightsError, match=r"12 latents without a place and 16 on a grid of \(2,"),
    ):
        EdgeTamNetwork(EdgeTamVideoModel(config))


def test_compiling_it_is_refused(edgetam: EdgeTamNetwork):
    with pytest.raises(SettingsError, match="--compile knows SAM 2 and not EdgeTAM"):
        CompiledNetwork(edgetam)


def test_a_memory_takes_512_tokens_at_any_size_in_the_plan():
    """Defaults of EdgeTAM: 7 memories of 512 tokens of 64 bfloat16 numbers, 16 pointers of 256 float32 numbers."""
    from transformers import EdgeTamVideoConfig, EdgeTamVideoModel

    with torch.device("meta"):
        network = EdgeTamNetwork(EdgeTamVideoModel(EdgeTamVideoConfig()))
    assert tracking_memory(network).state == 7 * 512 * 64 * 2 + 16 * 256 * 4
    assert tracking_memory(network, (32, 32)).state == tracking_memory(network).state
    assert 80e6 < tracking_memory(network).work < 95e6  # counted tensor by tensor on the meta device: 82 MB
    full = network_cost(network, points=1)
    network.set_image_size(512)
    small = network_cost(network, points=1)
    assert full.state_bytes == small.state_bytes == 7 * 512 * 64 * 2 + 16 * 256 * 4
    cells, keys = 64**2, 7 * 512 + 16 * 4
    around = 4 * 2 * cells * 256**2 + 2 * 2 * cells**2 * 256  # projections, attention
    back = 2 * 2 * cells * 256**2 + 2 * 2 * keys * 64 * 256 + 2 * 2 * cells * keys * 256
    attend = 2 * (around + back + 2 * 2 * cells * 256 * 2048)  # two layers
    assert full.look == around
    assert full.follow + full.look == pytest.approx(attend + 1.0e9 + 11.6e9 + full.prompt, rel=0.01)
    assert small.follow < full.follow / 3


def test_a_saved_edgetam_loads_to_the_same_weights(edgetam: EdgeTamNetwork, folder: Path):
    loaded, outline = load_network(folder), outline_network(folder)
    assert isinstance(loaded, EdgeTamNetwork)
    assert isinstance(outline, EdgeTamNetwork)
    expected = edgetam.model.state_dict()
    assert loaded.model.state_dict().keys() == outline.model.state_dict().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in loaded.model.state_dict().items())
    assert not loaded.training
    assert (loaded.num_latents, outline.num_latents) == (28, 28)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("spatial_perceiver.latents_1d", None, r"lacks 1 weights .*spatial_perceiver\.latents_1d"),
        ("spatial_perceiver.latents_3d", torch.ones(2), r"and 1 not part of it \(spatial_perceiver\.latents_3d\)"),
        ("spatial_perceiver.layer_norm.bias", torch.ones(2), r"layer_norm\.bias \(2,\) instead of \(64,\)"),
    ],
)
def test_every_weight_is_accounted_for(name: str, change: Tensor | None, message: str, folder: Path, tmp_path: Path):
    weights = load_file(folder / "model.safetensors")
    weights.pop(name, None)
    save_file(weights | ({} if change is None else {name: change}), tmp_path / "model.safetensors", {"format": "pt"})
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())

    with pytest.raises(WeightsError, match=message):
        load_network(tmp_path)


@pytest.mark.skipif(importlib.util.find_spec("timm") is not None, reason="timm is installed")
@pytest.mark.parametrize("load", [load_network, outline_network])
def test_what_the_released_encoder_needs_is_named_in_one_sentence(load: Any, folder: Path, tmp_path: Path):
    config = json.loads((folder / "config.json").read_text())
    config["vision_config"] = {"model_type": "edgetam_vision_model"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())

    with pytest.raises(
        WeightsError, match=r"image encoder needs what this machine lacks: timm.*Install that, or take a"
    ):
        load(tmp_path)
