"""SAM 2 by its name: known names, refusals, and a network at the size, in the format that was asked for."""

import pytest
import torch

from sam2vss.errors import SettingsError, WeightsError
from sam2vss.sam2.loading import find_sam2, load_sam2


def test_sam2_is_named_by_text_or_path_and_the_bundled_model_is_among_the_known_names(tmp_path):
    with pytest.raises(SettingsError, match="sam2 is None, expected an alias, a hub id or a folder"):
        find_sam2(None)
    with pytest.raises(WeightsError, match=r"config\.json is missing"):
        find_sam2(tmp_path)
    with pytest.raises(WeightsError, match=r"Known names: nano, sam2\.1-tiny"):
        find_sam2("nope")
    with pytest.raises(WeightsError, match="the name of a model is empty; known names: nano"):
        find_sam2("")
    with pytest.raises(SettingsError, match="320000: sides must be multiples of 32 from 64 on up to 4096"):
        load_sam2(find_sam2("nano"), image_size=(320000, 320000))


def test_both_names_of_the_bundled_weights_lead_to_them():
    assert find_sam2("nano") == find_sam2("sam2-nano")
    assert (find_sam2("nano").path / "model.safetensors").is_file()


def test_a_network_has_the_size_and_number_format_that_were_asked_for():
    network = load_sam2(find_sam2("nano"), image_size=(128, 192), device="cpu", dtype="bfloat16")
    assert network.input_size == (128, 192)
    assert network.dtype == torch.bfloat16
    assert load_sam2(find_sam2("nano"), device="cpu").input_size == (384, 384)
