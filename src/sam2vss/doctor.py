"""What is installed, which devices there are, and which weights are in reach, for `sam2vss doctor` and bug reports.

Looks and never changes anything: nothing is downloaded, and whatever is missing is a line of the answer, not an error.
"""

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from .files import sha256_of
from .hub import cached_model, hub_problem, is_offline
from .settings import SAM2_ALIASES, SEGMENTER_ALIASES

Status = Literal["ok", "note", "problem"]

HUB_TIMEOUT_S = 1.5
MIN_FREE_GB = 5.0  # ours: SAM 2.1 base-plus and SegFormer-B2 together take 0.4 GB, a run's label maps and videos more
TRANSFORMERS_RANGE = ((5, 8), (6, 0))  # from the first up to, not including, the second; as in pyproject.toml
_BUNDLED = {
    "sam2-nano": "sam2/nano",
    "segformer-nano": "segmenters/nano",
    "classifier nano": "classifiers/nano/classifier",
    "fusion nano": "classifiers/nano/fusion",
    "fusion nano-any": "classifiers/nano/fusion-any",
}


@dataclass(frozen=True)
class Check:
    """One line of the answer.

    Attributes:
        name: What was looked at.
        status: "ok", "note" (works, but worth knowing) or "problem" (something will not work).
        found: What there is.
        advice: What to do about it, "" if nothing.
    """

    name: str
    status: Status
    found: str
    advice: str = ""


def collect() -> list[Check]:
    """Look at everything; takes about as long as importing torch. Never raises for what it finds."""
    looks: tuple[Callable[[], list[Check]], ...] = (
        _python,
        _torch,
        _transformers,
        _torchvision,
        _video,
        _opencv,
        _disk,
        _bundled_weights,
        _cached_weights,
    )
    with ThreadPoolExecutor(max_workers=1) as pool:
        hub = pool.submit(_hub)  # waits for the network while torch is imported
        checks = [check for look in looks for check in _safely(look)]
        return checks + _safely(hub.result)


def rows(checks: Sequence[Check]) -> list[tuple[str, str, str]]:
    """Return (name, status, text) per check, for a table."""
    return [
        (check.name, check.status, f"{check.found}. {check.advice}" if check.advice else check.found)
        for check in checks
    ]


def to_json(checks: Sequence[Check]) -> dict[str, Any]:
    """Return the checks as plain data, and whether all is well."""
    return {"ok": all(check.status != "problem" for check in checks), "checks": [asdict(check) for check in checks]}


def _safely(look: Callable[[], list[Check]]) -> list[Check]:
    """Run one look. A broken installation can raise anything at all, and to say so is what this module is for."""
    try:
        return look()
    except Exception as error:
        name = getattr(look, "__name__", "check").strip("_").replace("_", " ")
        return [Check(name, "problem", f"{type(error).__name__}: {str(error).strip() or '(no message)'}")]


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _python() -> list[Check]:
    python = Check("python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    ours = _version("sam2vss")
    if ours is None:
        return [python, Check("sam2vss", "note", "not installed, run from a source folder")]
    return [python, Check("sam2vss", "ok", ours)]


def _torch() -> list[Check]:
    if _version("torch") is None:
        return [Check("torch", "problem", "not installed", "Install it: pip install torch")]
    import torch

    cores = os.cpu_count() or 1
    checks = [
        Check("torch", "ok", torch.__version__),
        Check(
            "device cpu",
            "ok",
            f"{torch.get_num_threads()} threads of {cores} cores, {torch.backends.cpu.get_cpu_capability()}, "
            f"bfloat16 {'in hardware' if _cpu_has_bfloat16() else 'emulated (use float32)'}",
        ),
    ]
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        properties = torch.cuda.get_device_properties(index)
        bfloat16 = "with" if torch.cuda.is_bf16_supported() else "without"
        found = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, {bfloat16} bfloat16"
        checks.append(Check(f"device cuda:{index}", "ok", found))
    if torch.backends.mps.is_available():
        checks.append(Check("device mps", "ok", "Apple GPU"))
    if len(checks) == 2:
        checks.append(
            Check("gpu", "note", "none", "SAM 2 at full size takes minutes per frame on a CPU; see --preset cpu.")
        )
    return checks


def _cpu_has_bfloat16() -> bool:
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux
        return platform.machine() in ("arm64", "aarch64")
    return "avx512_bf16" in flags or "amx_bf16" in flags or "bf16" in flags.partition("Features")[2].partition("\n")[0]


def _transformers() -> list[Check]:
    low, high = TRANSFORMERS_RANGE
    expected = f">={low[0]}.{low[1]},<{high[0]}"
    found = _version("transformers")
    if found is None:
        return [Check("transformers", "problem", "not installed", f'Install it: pip install "transformers{expected}"')]
    numbers = tuple(int(part) for part in found.split(".")[:2] if part.isdigit())
    if not low <= numbers < high:
        advice = f'Its inner interfaces differ from those tested; pip install "transformers{expected}"'
        return [Check("transformers", "problem", f"{found}, expected {expected}", advice)]
    return [Check("transformers", "ok", found)]


def _torchvision() -> list[Check]:
    """Torchvision is not needed, but one that does not fit torch breaks every vision class of transformers."""
    if importlib.util.find_spec("torchvision") is None:
        return [Check("torchvision", "ok", "not installed, not needed")]
    try:
        importlib.import_module("torchvision")
    except Exception as error:  # whatever a library raises whose compiled part does not fit
        advice = "transformers cannot load its vision models beside it: pip uninstall torchvision"
        return [Check("torchvision", "problem", f"installed but broken: {str(error).splitlines()[0]}", advice)]
    return [Check("torchvision", "ok", f"{_version('torchvision')}, not needed")]


def _video() -> list[Check]:
    if _version("av") is None:
        return [Check("video", "problem", "PyAV is not installed", "Install it: pip install av")]
    import av
    from av.codec.codec import UnknownCodecError

    try:
        av.Codec("libx264", "w")
    except UnknownCodecError:
        return [Check("video", "problem", f"PyAV {av.__version__} without libx264", "Overlays need it: pip install av")]
    return [Check("video", "ok", f"PyAV {av.__version__}, H.264 encoder libx264")]


def _opencv() -> list[Check]:
    if importlib.util.find_spec("cv2") is None:
        return [Check("opencv", "problem", "not installed", "Install it: pip install opencv-python-headless")]
    import cv2

    return [Check("opencv", "ok", cv2.__version__)]


def _disk() -> list[Check]:
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    if free < MIN_FREE_GB:
        return [Check("disk", "note", f"{free:.1f} GB free in the current folder", "Runs and weights may fill it.")]
    return [Check("disk", "ok", f"{free:.0f} GB free in the current folder")]


def _bundled_weights() -> list[Check]:
    checks = []
    for model, place in _BUNDLED.items():
        file = Path(__file__).parent / place / "model.safetensors"
        name = f"bundled {model}"
        if file.is_file():
            found = f"{file.stat().st_size / 1e6:.1f} MB, sha256 {sha256_of(file)[:12]}"
            checks.append(Check(name, "ok", found))
        else:
            checks.append(Check(name, "problem", "missing", "It belongs to the package: install it again."))
    return checks


def _cached_weights() -> list[Check]:
    checks = []
    for alias, hub_id in {**SAM2_ALIASES, **SEGMENTER_ALIASES}.items():
        location = cached_model(hub_id)
        if location is not None:
            revision = (location.revision or "")[:12]
            checks.append(
                Check(f"weights {alias}", "ok", f"cached, {location.num_bytes / 1e6:.0f} MB, revision {revision}")
            )
    if not checks:
        advice = "They are fetched when first asked for; `--sam2 nano` needs none."
        return [Check("weights", "note", "none of the known models is in the local cache", advice)]
    return checks


def _hub() -> list[Check]:
    if is_offline():
        return [Check("hub", "note", "HF_HUB_OFFLINE is set: only cached weights are used")]
    problem = hub_problem(HUB_TIMEOUT_S)
    if problem:
        return [Check("hub", "note", problem, "Cached and bundled weights work without it.")]
    return [Check("hub", "ok", "answers")]
