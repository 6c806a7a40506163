"""Names of encoders: every form that is understood, and what is said of all others; fingerprints."""

import json

import pytest

from sam2vss.encoders import load_encoder
from sam2vss.encoders.names import EncoderName, fingerprint, parse_name
from sam2vss.errors import SettingsError
from sam2vss.hub import ModelLocation


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sam2:nano", EncoderName("sam2", "nano")),
        ("sam2:nano/low", EncoderName("sam2", "nano", ("low",))),
        ("sam2:nano/low+high+stage1", EncoderName("sam2", "nano", ("low", "high", "stage1"))),
        ("sam2:nano/low@512", EncoderName("sam2", "nano", ("low",), "512")),
        ("sam2:nano/low@1024x576", EncoderName("sam2", "nano", ("low",), "1024x576")),
        ("sam2:facebook/sam2.1-hiera-tiny", EncoderName("sam2", "facebook/sam2.1-hiera-tiny")),
        ("sam2:facebook/sam2.1-hiera-tiny/mid", EncoderName("sam2", "facebook/sam2.1-hiera-tiny", ("mid",))),
        ("sam2:org/name@v1/low", EncoderName("sam2", "org/name@v1", ("low",))),
        ("sam2:/data/sam2.1_hiera_tiny.pt/high", EncoderName("sam2", "/data/sam2.1_hiera_tiny.pt", ("high",))),
        ("sam2:/models/low/low", EncoderName("sam2", "/models/low", ("low",))),
        ("sam2:/models/a/b/", EncoderName("sam2", "/models/a/b")),
        ("sam2:low", EncoderName("sam2", "low")),
        ("segmenter:org/name/fused", EncoderName("segmenter", "org/name", ("fused",))),
        ("segmenter:org/low", EncoderName("segmenter", "org/low")),
        ("backbone:org/name/last+layer11@448", EncoderName("backbone", "org/name", ("last", "layer11"), "448")),
        (r"backbone:C:\models\dino/last", EncoderName("backbone", r"C:\models\dino", ("last",))),
    ],
)
def test_a_name_is_taken_apart_and_put_together_again(text, expected):
    assert parse_name(text) == expected
    assert str(expected) == text.rstrip("/")
    assert parse_name(str(expected)) == expected


@pytest.mark.parametrize("text", ["", "nano", "sam3:nano", "sam2:", "sam2:/", "sam2: ", None])
def test_other_forms_are_met_with_the_known_ones(text):
    with pytest.raises(SettingsError, match=r"is not understood, expected sam2:ID, segmenter:ID or backbone:ID"):
        load_encoder(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sam2:nano/lwo", "lwo names no levels of sam2, expected high, mid, low, stage1 to stage4"),
        ("sam2:nano/low+last", r"low\+last names no levels of sam2"),
        ("segmenter:segformer-b2/low", r"low names no levels of segmenter, expected stage1, stage2, \.\.\. or fused"),
        ("backbone:org/name/stage1", "stage1 names no levels of backbone, expected last, layer0, layer1"),
        ("sam2:nano/low+low", "names a level twice"),
        ("sam2:nano/low@0", "sides may be 1 to 4096"),
        ("sam2:nano/low@64x9000", "sides may be 1 to 4096"),
        ("sam2:nano/low@big", "low@big names no levels"),
    ],
)
def test_levels_that_do_not_exist_are_told_from_ids(text, message):
    with pytest.raises(SettingsError, match=message):
        parse_name(text)


def test_a_size_is_width_times_height():
    assert parse_name("sam2:nano/low@1024x576").image_size == (576, 1024)
    assert parse_name("sam2:nano/low@512").image_size == (512, 512)
    assert parse_name("sam2:nano/low").image_size is None


def test_a_fingerprint_tells_weights_configuration_and_whatever_else_is_decisive(tmp_path):
    def folder(name, config, weights):
        path = tmp_path / name
        path.mkdir()
        (path / "config.json").write_text(json.dumps(config))
        (path / "model.safetensors").write_bytes(weights)
        return ModelLocation(name, path)

    first, same = folder("a", {"x": 1}, b"1"), folder("b", {"x": 1}, b"1")
    assert fingerprint(first, {"levels": ["low"], "side": 8}) == fingerprint(same, {"side": 8, "levels": ("low",)})
    others = [
        fingerprint(first, {"levels": ["mid"], "side": 8}),
        fingerprint(folder("c", {"x": 2}, b"1"), {"levels": ["low"], "side": 8}),
        fingerprint(folder("d", {"x": 1}, b"2"), {"levels": ["low"], "side": 8}),
    ]
    found = {fingerprint(first, {"levels": ["low"], "side": 8}), *others}
    assert len(found) == 4
    assert all(len(digits) == 16 and int(digits, 16) >= 0 for digits in found)
