"""Model input: the geometry of transformers' Pillow processors exactly, their pixels to one grey level."""

import json

import numpy as np
import pytest
import torch
import transformers as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sam2vss.errors import WeightsError
from sam2vss.segmenters.preprocessing import Preprocessing, _resize_in_floats, resize

SIZES = [(37, 64), (90, 41), (5, 3), (33, 33)]
CASES = {
    "segformer": (tf.SegformerImageProcessorPil, {"size": {"height": 32, "width": 48}}),
    "segformer, old form": (tf.SegformerImageProcessorPil, {"size": 32, "resample": 2}),
    "segformer, no resize": (tf.SegformerImageProcessorPil, {"do_resize": False}),
    "segformer, no normalisation": (tf.SegformerImageProcessorPil, {"size": 32, "do_normalize": False}),
    "segformer, no rescaling": (tf.SegformerImageProcessorPil, {"size": 32, "do_rescale": False}),
    "segformer, nearest": (tf.SegformerImageProcessorPil, {"size": 32, "resample": 0}),
    "beit": (tf.BeitImageProcessorPil, {"size": {"height": 48, "width": 48}}),
    "dpt": (tf.DPTImageProcessorPil, {"size": {"height": 48, "width": 48}}),
    "dpt, aspect ratio": (
        tf.DPTImageProcessorPil,
        {"size": {"height": 48, "width": 48}, "keep_aspect_ratio": True, "ensure_multiple_of": 16},
    ),
    "mobilenet": (tf.MobileNetV2ImageProcessorPil, {"size": {"shortest_edge": 32}, "do_center_crop": False}),
    "mobilevit": (tf.MobileViTImageProcessorPil, {"size": {"shortest_edge": 32}, "do_center_crop": False}),
    "mask2former": (tf.Mask2FormerImageProcessorPil, {"size": {"shortest_edge": 40, "longest_edge": 66}}),
    "maskformer, old form": (tf.MaskFormerImageProcessorPil, {"size": 40, "max_size": 66, "size_divisor": 16}),
    "detr": (tf.DetrImageProcessorPil, {"size": {"shortest_edge": 40, "longest_edge": 66}}),
    "eomt, split": (
        tf.EomtImageProcessorPil,
        {"size": {"shortest_edge": 32, "longest_edge": None}, "do_split_image": True},
    ),
    "eomt, padded": (tf.EomtImageProcessorPil, {"size": {"shortest_edge": 48, "longest_edge": 48}, "do_pad": True}),
}


def ours(processor_class: type, config: dict) -> Preprocessing:
    return Preprocessing.from_dict({"image_processor_type": processor_class.__name__, **config}, "")


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_pixels_equal_those_of_the_pillow_processor_to_one_grey_level(case, height, width):
    processor_class, config = CASES[case]
    frame = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    is_bicubic = case.startswith(("beit", "dpt", "mobilevit"))
    if is_bicubic:  # no hard edges, where Pillow's order of passes matters
        frame = np.asarray(Image.fromarray(frame[:3, :3] // 2 + 64).resize((width, height), Image.Resampling.BILINEAR))
    expected = np.stack(
        processor_class(**config)(frame, return_tensors="np", input_data_format="channels_last")["pixel_values"]
    )
    preprocessing = ours(processor_class, config)
    found = preprocessing(torch.tensor(frame)[None]).numpy()
    assert found.shape == expected.shape
    grey_level = preprocessing.scale / min(preprocessing.std)
    assert np.abs(found - expected).max() <= (2.01 if is_bicubic else 1.01) * grey_level  # measured: 2 and 1 levels


def test_a_frame_that_needs_no_resizing_keeps_its_exact_values():
    frame = torch.tensor([[[[0, 51, 255]]]], dtype=torch.uint8)  # L=1, H=1, W=1
    config = {"do_resize": False, "image_mean": [0.5, 0.2, 0.0], "image_std": [0.5, 0.1, 2.0]}
    preprocessing = Preprocessing.from_dict(config, "segformer")
    # (0 - 0.5) / 0.5 = -1, (51 / 255 - 0.2) / 0.1 = 0, (1 - 0) / 2 = 0.5
    assert preprocessing(frame).flatten().tolist() == pytest.approx([-1, 0, 0.5], abs=1e-6)


@pytest.mark.parametrize("size", [(20, 30), (90, 70)])
def test_the_way_of_a_gpu_gives_the_same_pixels_to_one_grey_level(size):
    images = torch.randint(0, 256, (2, 3, 41, 53), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    bytes_way, floats_way = (way(images, size, "bilinear").int() for way in (resize, _resize_in_floats))
    assert (bytes_way - floats_way).abs().max() == 1


def test_channels_are_flipped_where_the_model_wants_bgr():
    frame = torch.tensor([[[[255, 0, 0]]]], dtype=torch.uint8)
    preprocessing = Preprocessing.from_dict({"do_resize": False}, "mobilevit")
    assert preprocessing(frame).flatten().tolist() == [0, 0, 1]


@settings(max_examples=60, deadline=None)
@given(st.integers(8, 300), st.integers(8, 300), st.sampled_from(list(CASES)))
def test_sizes_equal_those_of_the_pillow_processor(height, width, case):
    processor_class, config = CASES[case]
    processor = processor_class(**{**config, "do_split_image": False, "do_pad": False} if "eomt" in case else config)
    picture = np.zeros((height, width, 3), np.uint8)
    expected = processor(picture, return_tensors="np", input_data_format="channels_last")["pixel_values"].shape[2:]
    assert ours(processor_class, config).resized((height, width)) == expected


def test_patches_cover_the_longer_side_evenly():
    preprocessing = ours(tf.EomtImageProcessorPil, {"size": {"shortest_edge": 32}, "do_split_image": True})
    # 40 x 100 becomes 32 x 80: 3 patches of 32 overlap by (96 - 80) / 2 = 8, so they start at 0, 24, 48.
    assert preprocessing.patches((40, 100)).starts == (0, 24, 48)
    assert not preprocessing.patches((40, 100)).along_height
    assert preprocessing.patches((100, 40)).along_height
    assert preprocessing.patches((40, 40)).starts == (0,)


def test_a_very_long_picture_keeps_at_least_one_pixel():
    preprocessing = ours(
        tf.MaskFormerImageProcessorPil, {"size": {"shortest_edge": 40, "longest_edge": 60}, "size_divisor": 0}
    )
    assert preprocessing.resized((1, 900)) == (1, 60)


def test_centre_crops_are_left_out_because_every_pixel_gets_a_label():
    crop = {"size": {"shortest_edge": 32}, "do_center_crop": True, "crop_size": {"height": 8, "width": 8}}
    assert ours(tf.MobileNetV2ImageProcessorPil, crop).resized((64, 128)) == (32, 64)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"image_processor_type": "NewImageProcessor"},
            r"NewImageProcessor|New is not known and does not say \['size'",
        ),
        ({"image_processor_type": "NewImageProcessor", "size": 8, "resample": 2, "do_normalize": True}, "image_mean"),
        ({"resample": 1}, "resampling filter 1 is not supported"),
        ({"size": {"width": 8}}, "the input size .* is not understood"),
        ({"image_mean": [0.5]}, "1 channel values, expected 3"),
        ({"image_processor_type": "DPTImageProcessor", "do_pad": True}, "pad around the frame"),
    ],
)
def test_what_is_not_understood_is_refused_and_not_guessed(config, message):
    with pytest.raises(WeightsError, match=message):
        Preprocessing.from_dict(config, "segformer")


def test_a_processor_inside_a_newer_file_is_found(tmp_path):
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": {"size": 24}}))
    assert Preprocessing.from_folder(tmp_path, "segformer").resized((5, 5)) == (24, 24)


def test_an_unknown_processor_that_says_everything_is_followed():
    config = {"image_processor_type": "NewImageProcessor", "size": {"height": 8, "width": 9}, "resample": 2}
    preprocessing = Preprocessing.from_dict({**config, "do_normalize": False}, "")
    assert preprocessing.resized((5, 5)) == (8, 9)
    assert preprocessing.std == (1, 1, 1)


def test_what_a_file_leaves_out_comes_from_the_caller_only_where_its_processor_is_not_known():
    values = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "do_normalize": True}
    otherwise = {"size": {"height": 8, "width": 8}, "resample": 0}
    unknown = Preprocessing.from_dict(
        {"image_processor_type": "NewImageProcessor", "size": None, **values}, "x", otherwise
    )
    assert (unknown.size, unknown.interpolation) == ({"height": 8, "width": 8}, "nearest-exact")
    known = Preprocessing.from_dict({"image_processor_type": "BeitImageProcessor", **values}, "beit", otherwise)
    assert (known.size, known.interpolation) == ({"height": 224, "width": 224}, "bicubic")
