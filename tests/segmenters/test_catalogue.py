"""The list of known base models against what else the package knows of them."""

import json
from pathlib import Path

import pytest

from sam2vss.boards.published import find_published
from sam2vss.hub import ModelLocation
from sam2vss.segmenters import catalogue, load_segmenter
from sam2vss.segmenters.catalogue import KnownModel, find_known_models, known_models
from sam2vss.segmenters.vss.architecture import build, default_architecture
from sam2vss.settings import SAFETENSORS_REVISIONS, SEGMENTER_ALIASES
from sam2vss.training.segmenter_start import NATIVE_FAMILIES

GOLDEN = json.loads((Path(__file__).parent / "golden_videomt.json").read_text())


def test_every_alias_stands_in_the_list_under_its_short_name():
    listed = {model.name: model.hub_id for model in known_models() if model.hub_id}

    assert SEGMENTER_ALIASES.items() <= listed.items()
    assert len(set(listed.values())) == len(listed)


def test_every_revision_with_safetensors_is_of_a_listed_model():
    assert SAFETENSORS_REVISIONS.keys() <= {model.hub_id for model in known_models()}


@pytest.mark.parametrize("name", ["segformer-b2", "SegFormer-B2", "nvidia/segformer-b2-finetuned-ade-512-512"])
def test_a_model_is_found_by_alias_and_by_hub_id(name: str):
    (found,) = find_known_models(name)

    assert (found.family, found.num_classes, found.size) == ("SegFormer B2", 150, "110 MB")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("cffm-b1", ["cffm-b1"]),
        ("CFFM MiT-B1", ["cffm-b1"]),
        ("tv3s", ["tv3s-b1", "tv3s-b2", "tv3s-b5"]),
        ("CFFM", [f"{family}-{size}" for family in ("cffm", "cffm++") for size in ("b0", "b1", "b2", "b5")]),
        ("segformer-vss", [f"segformer-vss-{size}" for size in ("b0", "b1", "b2", "b5")]),
        ("videomt vit-l (dinov3)", ["vspw_dinov3_94.4_64.0.pth", "vipsseg_dinov3_55.1_47.1.pth"]),
    ],
)
def test_a_part_of_a_name_or_family_finds_every_line_with_it(text: str, names: list[str]):
    assert [model.name for model in find_known_models(text)] == names


@pytest.mark.parametrize("name", ["", " ", "segformer-b9", "github.com"])
def test_other_names_are_not_found(name: str):
    assert find_known_models(name) == ()


def test_every_name_is_of_one_line():
    names = [model.name for model in known_models()]

    assert len(set(names)) == len(names)


NATIVE = {"SegFormer": "segformer-vss", "CFFM": "cffm", "CFFM++": "cffm++", "MRCFA": "mrcfa", "TV3S": "tv3s"}


@pytest.mark.parametrize(
    "model", [model for model in known_models() if " MiT-" in model.family], ids=lambda model: model.name
)
def test_native_networks_are_called_and_counted_as_training_makes_them(model: KnownModel):
    family, _, size = model.family.lower().rpartition(" mit-")
    family = next(name for name in NATIVE if name.lower() == family)
    name, architecture = f"{NATIVE[family]}-{size}", default_architecture(family, size, 124)

    assert model.name == name
    assert (NATIVE_FAMILIES.get(name.rpartition("-")[0]) == family) == ("train segmenter --model" in model.usage)
    assert model.parameters_m == round(sum(p.numel() for p in build(architecture).parameters()) / 1e6, 2)
    assert ".pth" in model.usage
    assert ".pth" in model.source


def test_the_place_of_a_model_follows_the_cache(monkeypatch: pytest.MonkeyPatch):
    cached = ModelLocation("Intel/dpt-large-ade", Path("x"))
    monkeypatch.setattr(catalogue, "cached_model", lambda hub_id: cached if hub_id == cached.id else None)

    places = {model.hub_id or model.family: model.place for model in known_models()}

    assert places["Intel/dpt-large-ade"] == "in the local cache"
    assert places["nvidia/segformer-b2-finetuned-ade-512-512"] == "not here"
    assert places["CFFM MiT-B1"] == "a file of yours"
    assert places["SegFormer, a tiny one"] == "in the package"


def test_rows_of_the_paper_exist():
    rows = [model.paper_row for model in known_models() if model.paper_row]

    assert len(rows) == 11
    assert all(find_published("VSPW", row) for row in rows)


def test_the_bundled_model_is_described_as_it_is():
    bundled, loaded = known_models()[0], load_segmenter("segformer-nano")

    assert bundled.num_classes == loaded.label_space.num_classes
    assert bundled.megabytes == pytest.approx(loaded.location.num_bytes / 1e6, abs=0.05)


@pytest.mark.parametrize(("encoder", "golden"), [("DINOv2", "L"), ("DINOv3", "L (DINOv3)")])
def test_videomt_has_as_many_parameters_as_the_authors_network(encoder: str, golden: str):
    sizes = {model.parameters_m for model in known_models() if model.family == f"VidEoMT ViT-L ({encoder})"}

    assert sizes == {round(GOLDEN["names"][golden]["parameters"] / 1e6, 1)}
