"""Which software a run is made with."""

import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_PACKAGES = ("sam2vss", "torch", "transformers", "numpy", "av", "opencv-python-headless", "pillow", "pycocotools")


def installed_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that decide results, without importing them."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return versions


@cache
def code_revision() -> str | None:
    """Return the revision of the checkout this package runs from ("-dirty" with changes), None when installed."""
    package = Path(__file__).resolve().parent
    checkout = package.parent.parent
    if package.parent.name != "src" or not (checkout / ".git").exists():
        return None
    # Without optional locks: a run must not get in the way of a commit that is being made.
    command = ["git", "--no-optional-locks", "-C", str(checkout)]
    command += ["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
