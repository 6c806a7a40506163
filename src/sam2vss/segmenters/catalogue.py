"""What can be given as --segmenter: well-known models, where their weights come from, and what is on this machine.

Only models are listed whose names, sizes and licences were read on their pages; any other segmentation model that
transformers loads works as well. Nothing here asks the network.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from ..hub import cached_model
from ..settings import SEGMENTER_ALIASES
from .class_names import NUM_VSPW_CLASSES

Place = Literal["in the package", "in the local cache", "not here", "a file of yours"]

SEE_PAGE: Final = "see its page"
CODE_MIT: Final = "MIT (code); weights: see its page"
NVIDIA: Final = "NVIDIA, non-commercial"
_BUNDLED: Final = Path(__file__).parent / "nano"


@dataclass(frozen=True)
class KnownModel:
    """One line of the catalogue.

    Attributes:
        name: What --segmenter takes: a bundled name, an alias, a hub id, the name of a published file; or a network
            such as "cffm-b1", as `train segmenter --model` calls it, whose weights come as a file.
        family: Architecture and size.
        class_set: Name of its label set.
        num_classes: C.
        licence: Of the weights, as far as it was seen.
        source: Where the weights come from.
        megabytes: Size of the weights, None where it was not seen.
        parameters_m: Millions of parameters, None where it was not counted.
        published: A score that others published, with the data set and its source; "" where none is known here.
        paper_row: Name of the paper's row on VSPW, for its scores; "" where it has none.
        hub_id: Where the hub has it, "" for others.
        usage: The options that use it, "" where that is --segmenter and the name.
    """

    name: str
    family: str
    class_set: str
    num_classes: int
    licence: str
    source: str
    megabytes: float | None = None
    parameters_m: float | None = None
    published: str = ""
    paper_row: str = ""
    hub_id: str = ""
    usage: str = ""

    @property
    def place(self) -> Place:
        """Where the weights are, seen from here."""
        if self.name == "segformer-nano":
            return "in the package"
        if not self.hub_id:
            return "a file of yours"
        return "not here" if cached_model(self.hub_id) is None else "in the local cache"

    @property
    def size(self) -> str:
        """Size in words, "" where it is not known."""
        parameters = f"{self.parameters_m:g} M parameters" if self.parameters_m is not None else ""
        megabytes = f"{self.megabytes:g} MB" if self.megabytes is not None else ""
        return ", ".join(part for part in (parameters, megabytes) if part)


def known_models() -> tuple[KnownModel, ...]:
    """Return the catalogue: the bundled model, models of single pictures on the hub, then models of videos."""
    return (*_bundled(), *_on_the_hub(), *_checkpoints())


def find_known_models(text: str) -> tuple[KnownModel, ...]:
    """Return the line of a name or hub id, else all with `text` in name, hub id or family; case does not count."""
    wanted = text.strip().casefold()
    lines = {model: [word.casefold() for word in (model.name, model.hub_id, model.family)] for model in known_models()}
    exact = tuple(model for model, (name, hub_id, _) in lines.items() if wanted and wanted in (name, hub_id))
    return exact or tuple(model for model, words in lines.items() if wanted and any(wanted in word for word in words))


def _bundled() -> Iterator[KnownModel]:
    file = _BUNDLED / "model.safetensors"
    megabytes = round(file.stat().st_size / 1e6, 1) if file.is_file() else None
    yield KnownModel(
        "segformer-nano", "SegFormer, a tiny one", "rendered streets", 10, "Apache-2.0", "in the package", megabytes
    )


# Hub id, family, class set, licence, megabytes of its safetensors (None: not seen), published score. Source: the
# models' pages on the hub. "other" on a page is "see its page" here; NVIDIA's licence is that of NVlabs/SegFormer.
_ADE, _CITY = ("ADE20K", 150), ("Cityscapes", 19)
_HUB: Final[tuple[tuple[str, str, tuple[str, int], str, float | None, str], ...]] = (
    ("nvidia/segformer-b0-finetuned-ade-512-512", "SegFormer B0", _ADE, NVIDIA, 15, ""),
    ("nvidia/segformer-b1-finetuned-ade-512-512", "SegFormer B1", _ADE, NVIDIA, 54.9, ""),
    ("nvidia/segformer-b2-finetuned-ade-512-512", "SegFormer B2", _ADE, NVIDIA, 110, ""),
    ("nvidia/segformer-b3-finetuned-ade-512-512", "SegFormer B3", _ADE, NVIDIA, 189, ""),
    ("nvidia/segformer-b4-finetuned-ade-512-512", "SegFormer B4", _ADE, NVIDIA, None, ""),
    ("nvidia/segformer-b5-finetuned-ade-640-640", "SegFormer B5", _ADE, NVIDIA, 339, ""),
    ("nvidia/segformer-b0-finetuned-cityscapes-1024-1024", "SegFormer B0", _CITY, NVIDIA, None, ""),
    ("nvidia/segformer-b5-finetuned-cityscapes-1024-1024", "SegFormer B5", _CITY, NVIDIA, None, ""),
    ("facebook/mask2former-swin-small-ade-semantic", "Mask2Former Swin-S", _ADE, SEE_PAGE, None, ""),
    ("facebook/mask2former-swin-base-ade-semantic", "Mask2Former Swin-B", _ADE, SEE_PAGE, None, ""),
    ("facebook/mask2former-swin-large-ade-semantic", "Mask2Former Swin-L", _ADE, SEE_PAGE, 866, ""),
    ("facebook/mask2former-swin-large-cityscapes-semantic", "Mask2Former Swin-L", _CITY, SEE_PAGE, 866, ""),
    ("facebook/maskformer-swin-large-ade", "MaskFormer Swin-L", _ADE, SEE_PAGE, 850, ""),
    ("shi-labs/oneformer_ade20k_swin_large", "OneFormer Swin-L", _ADE, "MIT", None, ""),
    ("shi-labs/oneformer_cityscapes_swin_large", "OneFormer Swin-L", _CITY, "MIT", None, ""),
    ("tue-mps/ade20k_semantic_eomt_large_512", "EoMT ViT-L", _ADE, CODE_MIT, None, "58.4 mIoU, ADE20K val (authors)"),
    ("tue-mps/cityscapes_semantic_eomt_large_1024", "EoMT ViT-L", _CITY, CODE_MIT, None, ""),
    ("openmmlab/upernet-convnext-tiny", "UPerNet ConvNeXt-T", _ADE, SEE_PAGE, None, ""),
    ("openmmlab/upernet-swin-large", "UPerNet Swin-L", _ADE, "MIT", 940, ""),
    ("openmmlab/upernet-convnext-xlarge", "UPerNet ConvNeXt-XL", _ADE, "MIT", None, ""),
    ("Intel/dpt-large-ade", "DPT Large", _ADE, "Apache-2.0", None, ""),
    ("microsoft/beit-base-finetuned-ade-640-640", "BEiT Base", _ADE, "Apache-2.0", None, ""),
    ("microsoft/beit-large-finetuned-ade-640-640", "BEiT Large", _ADE, "Apache-2.0", None, ""),
)


def _on_the_hub() -> Iterator[KnownModel]:
    aliases = {hub_id: alias for alias, hub_id in SEGMENTER_ALIASES.items()}
    for hub_id, family, (class_set, num_classes), licence, megabytes, published in _HUB:
        yield KnownModel(
            aliases.get(hub_id, hub_id),
            family,
            class_set,
            num_classes,
            licence,
            f"hub: {hub_id}",
            megabytes,
            published=published,
            hub_id=hub_id,
        )


# Name and family, millions of parameters by size, licence, repository. The counts are those of our networks, which have
# every parameter that a checkpoint's inference uses (a test counts them). Sizes: those whose configurations the
# repositories hold.
_VSPW: Final[tuple[tuple[str, str, dict[str, float], str, str], ...]] = (
    ("cffm", "CFFM", {"B0": 4.66, "B1": 15.47, "B2": 26.51, "B5": 85.45}, NVIDIA, "GuoleiSun/VSS-CFFM"),
    ("cffm++", "CFFM++", {"B0": 5.61, "B1": 16.42, "B2": 27.46, "B5": 86.41}, NVIDIA, "GuoleiSun/VSS-CFFM"),
    ("mrcfa", "MRCFA", {"B0": 5.28, "B1": 16.32, "B2": 27.37, "B5": 84.61}, "academic use only", "GuoleiSun/VSS-MRCFA"),
    ("tv3s", "TV3S", {"B1": 17.25, "B2": 28.29, "B5": 85.54}, "CC BY-NC-SA 4.0", "Ashesham/TV3S"),
)
_SEGFORMER: Final = {"B0": 3.75, "B1": 13.71, "B2": 24.75, "B5": 82.0}


def _checkpoints() -> Iterator[KnownModel]:
    """Networks for videos, whose weights come as checkpoints (`.pth`)."""
    for size, parameters_m in _SEGFORMER.items():
        file = f"cffm_{size.lower()}.pth@frame"
        yield KnownModel(
            f"segformer-vss-{size.lower()}",
            f"SegFormer MiT-{size}",
            "VSPW",
            NUM_VSPW_CLASSES,
            "that of the checkpoint",
            "none of its own was published for VSPW; every checkpoint of CFFM, MRCFA and TV3S holds one, trained "
            f"together with the video head: {file}",
            parameters_m=parameters_m,
            usage=f"--segmenter {file}, or train segmenter --model segformer-vss-{size.lower()}",
        )
    for short, family, sizes, licence, repository in _VSPW:
        for size, parameters_m in sizes.items():
            name = f"{short}-{size.lower()}"
            yield KnownModel(
                name,
                f"{family} MiT-{size}",
                "VSPW",
                NUM_VSPW_CLASSES,
                licence,
                f"a .pth file from the authors, linked from the README of github.com/{repository}",
                parameters_m=parameters_m,
                paper_row="" if family == "CFFM++" else f"{family} MiT-{size}",
                usage="--segmenter FILE.pth" + f", or train segmenter --model {name}" * (family != "CFFM++"),
            )
    for class_set, encoder, file, parameters_m, published in (
        ("VSPW", "DINOv2", "vspw_vit_large_95.0_64.9.pth", 322.7, "64.9 mIoU, VSPW val (authors)"),
        ("VSPW", "DINOv3", "vspw_dinov3_94.4_64.0.pth", 316.1, "64.0 mIoU, VSPW val (authors)"),
        ("VIPSeg", "DINOv2", "vipseg_vit_large_55.2.pth", 322.7, "55.2 VPQ, VIPSeg val (authors)"),
        ("VIPSeg", "DINOv3", "vipsseg_dinov3_55.1_47.1.pth", 316.1, "55.1 VPQ, VIPSeg val (authors)"),
    ):
        yield KnownModel(
            file,
            f"VidEoMT ViT-L ({encoder})",
            class_set,
            NUM_VSPW_CLASSES,
            CODE_MIT,
            "a .pth file from the authors, linked from the model zoo of github.com/tue-mps/videomt",
            parameters_m=parameters_m,
            published=published,
            usage=f"--segmenter {file}",
        )
