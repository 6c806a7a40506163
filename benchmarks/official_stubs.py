"""Let the official code of CFFM, MRCFA and TV3S be imported as it is, without mmcv, mmseg, timm or a GPU.

    with official_code({"mmseg": CLONE / "mmseg"}):
        head = importlib.import_module("mmseg.models.decode_heads.cffm_head")

Inside the block the packages that these repositories import stand as small stand-ins in `sys.modules`, and the folders
that are named as packages are found without running their `__init__.py` (which would import everything). After the
block all of it is gone again, so that one process can load several clones that all call themselves `mmseg`. Build the
networks inside the block, run them anywhere. The clones need `einops`, a package of its own: `pip install einops`.
"""

import contextlib
import io
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# What a clone's packages are called inside of it; each becomes a package that only knows its folder.
SUBPACKAGES: Final = ("models", "models/decode_heads", "models/decode_heads/utils", "models/backbones", "ops")


@contextlib.contextmanager
def official_code(packages: Mapping[str, Path], extra: Mapping[str, ModuleType] | None = None) -> Iterator[None]:
    """Make the stand-ins and the given clones importable within the block.

    Args:
        packages: Top-level package name -> its folder in a clone, such as {"mmseg": clone / "mmseg"}; the folders of
            `SUBPACKAGES` beneath it become packages too.
        extra: Further stand-ins by full module name; they win over ours.
    """
    before = dict(sys.modules)
    modules = stand_ins() | clone_packages(packages) | dict(extra or {})
    tops = {name.partition(".")[0] for name in modules}
    forget(tops)
    try:
        for name, module in modules.items():
            sys.modules[name] = module
            parent, _, own = name.rpartition(".")
            if parent:
                setattr(sys.modules[parent], own, module)
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the official code prints, and calls torch's older forms
            yield
    finally:
        forget(tops)
        sys.modules.update({name: module for name, module in before.items() if name.partition(".")[0] in tops})


def forget(tops: set[str]) -> None:
    """Take all modules of these top-level packages out of `sys.modules`."""
    for name in list(sys.modules):
        if name.partition(".")[0] in tops:
            del sys.modules[name]


def new_module(name: str, content: Mapping[str, Any], folder: Path | None = None) -> ModuleType:
    """A module with these names in it; a package without own files where no folder is given."""
    module = ModuleType(name)
    module.__path__ = [] if folder is None else [str(folder)]
    for key, value in content.items():
        setattr(module, key, value)
    return module


def clone_packages(packages: Mapping[str, Path]) -> dict[str, ModuleType]:
    """The folders of the clones as packages, and the few names that their `__init__.py` would bring."""
    modules = {}
    for package, folder in packages.items():
        if not folder.is_dir():
            raise SystemExit(f"{folder} is no folder; {package} of the official code was expected there.")
        modules[package] = new_module(package, {}, folder)
        for part in SUBPACKAGES:
            name = f"{package}.{part.replace('/', '.')}"
            modules[name] = new_module(name, {}, folder / part)
    modules.setdefault("mmseg", new_module("mmseg", {}))
    modules.setdefault("mmseg.models", new_module("mmseg.models", {}))
    modules.setdefault("mmseg.ops", new_module("mmseg.ops", {}))
    modules["mmseg.ops"].resize = resize  # type: ignore[attr-defined]
    contents: dict[str, dict[str, Any]] = {
        "mmseg.core": {"build_pixel_sampler": None, "add_prefix": None},
        "mmseg.utils": {"get_root_logger": None},
        "mmseg.models.utils": {},
        "mmseg.models.losses": {"accuracy": no_accuracy},
        "mmseg.models.builder": {
            "BACKBONES": Registry(),
            "HEADS": Registry(),
            "LOSSES": Registry(),
            "SEGMENTORS": Registry(),
            "build_loss": build_loss,
        },
    }
    modules.update({name: new_module(name, content) for name, content in contents.items()})
    # MRCFA imports a plotting helper from a file that wants torchvision
    for package in packages:
        name = f"{package}.models.decode_heads.utils.utils"
        modules[name] = new_module(name, {"save_cluster_labels": None})
    return modules


def stand_ins() -> dict[str, ModuleType]:
    """Stand-ins for the packages that all three repositories import."""
    contents: dict[str, dict[str, Any]] = {
        "mmcv": {},
        "mmcv.cnn": {
            "ConvModule": ConvModule,
            "DepthwiseSeparableConvModule": None,
            "normal_init": no_init,
            "constant_init": no_init,
            "kaiming_init": no_init,
        },
        "mmcv.runner": {"auto_fp16": unchanged, "force_fp32": unchanged, "load_checkpoint": None},
        "timm": {},
        "timm.models": {},
        "timm.models.layers": {"DropPath": DropPath, "to_2tuple": to_2tuple, "trunc_normal_": nn.init.trunc_normal_},
        "timm.models.registry": {"register_model": lambda model: model},
        "timm.models.vision_transformer": {"_cfg": lambda **settings: settings},
        "attr": {},
        "IPython": {"embed": None},
        "fast_pytorch_kmeans": {"KMeans": None},
    }
    return {name: new_module(name, content) for name, content in contents.items()}


class Registry(dict[str, type]):
    """`@HEADS.register_module()` as the official files use it."""

    def register_module(self) -> Any:
        def register(kind: type) -> type:
            self[kind.__name__] = kind
            return kind

        return register


class ConvModule(nn.Module):
    """Convolution, norm (called `bn` or `gn`, like mmcv) and ReLU; a bias only where no norm follows."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        norm_cfg: Mapping[str, Any] | None = None,
        conv_cfg: object = None,
        act_cfg: object = "ReLU",
    ) -> None:
        super().__init__()
        assert conv_cfg is None
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=norm_cfg is None)
        self.norm_name = None if norm_cfg is None else "gn" if norm_cfg["type"] == "GN" else "bn"
        if self.norm_name == "gn":
            assert norm_cfg is not None
            self.gn = nn.GroupNorm(norm_cfg["num_groups"], out_channels)
        elif self.norm_name == "bn":
            self.bn = nn.BatchNorm2d(out_channels)  # SyncBN in eval mode, or on one device
        self.has_activation = act_cfg is not None

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if self.norm_name:
            x = getattr(self, self.norm_name)(x)
        return F.relu(x) if self.has_activation else x


class DropPath(nn.Module):
    """Stochastic depth in eval mode: nothing."""

    def __init__(self, drop_prob: float = 0.0) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        assert not self.training or self.drop_prob == 0
        return x


class CrossEntropy(nn.Module):
    """mmseg's CrossEntropyLoss: the mean over all pixels, ignored ones included."""

    def forward(self, logits: Tensor, labels: Tensor, weight: None = None, ignore_index: int = 255) -> Tensor:
        assert weight is None
        return F.cross_entropy(logits, labels, ignore_index=ignore_index, reduction="none").mean()


def build_loss(settings: Mapping[str, Any]) -> nn.Module:
    assert settings["type"] == "CrossEntropyLoss"
    return CrossEntropy()


def no_accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    del logits, labels
    return torch.zeros(())


def resize(
    input: Tensor,
    size: tuple[int, int] | None = None,
    scale_factor: float | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    warning: bool = True,
) -> Tensor:
    """`mmseg.ops.resize` without its warning."""
    del warning
    return F.interpolate(input, size, scale_factor, mode, align_corners)


def to_2tuple(value: int | tuple[int, int]) -> tuple[int, int]:
    return value if isinstance(value, tuple) else (value, value)


def no_init(*arguments: object, **named: object) -> None:
    del arguments, named


def unchanged(*arguments: object, **named: object) -> Any:
    """A decorator with arguments that changes nothing."""
    del arguments, named
    return lambda function: function
