"""Plots and pictures of a board's page: SVG that follows the page between light and dark, and pictures as data."""

import base64
import io
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Final

from PIL import Image

from ...errors import RunError
from ...files import under
from ..plots import Plot
from ..scoreboard import Picture

MAX_PICTURE_WIDTH: Final = 640
# Colours of the plots that follow the page between light and dark; the others are readable on both.
PAGE_COLORS: Final = {
    "#ffffff": "var(--card)",
    "#000000": "var(--soft)",
    "#1c2230": "var(--text)",
    "#5a6375": "var(--soft)",
    "#dde1e7": "var(--line)",
    "#00665e": "var(--plot-refined)",
    "#a0489b": "var(--plot-other)",
}


def plot_figure(plot: Plot, number: int) -> str:
    """Return a plot as a figure with the drawing in it; its ids are made unique on the page."""
    svg = plot.svg.decode("utf-8")
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style\b.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg\b[^>]*?) width="([\d.]+)pt" height="[\d.]+pt"', r'\1 style="max-width:\2pt"', svg, count=1)
    svg = re.sub(r'(<svg\b[^>]*?) xmlns:xlink="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg\b[^>]*?) xmlns="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r"#[0-9a-f]{6}\b", lambda match: PAGE_COLORS.get(match[0], match[0]), svg)
    svg = re.sub(r"(<[^<>]*?)\bxlink:href=", r"\1href=", svg)
    svg = re.sub(r'(<[^<>]*?\bid=")', rf"\1p{number}-", svg)
    svg = re.sub(r'(<[^<>]*?(?:href="|url\()#)', rf"\1p{number}-", svg)
    label = escape(plot.title)
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
    return f'<figure class="figure"><figcaption>{label}</figcaption><div class="drawing">{svg}</div></figure>'


def picture_figures(pictures: Sequence[Picture], folder: Path, troubles: list[str]) -> list[str]:
    """Return a figure for every picture with its versions side by side; what cannot be read goes to `troubles`."""
    figures = []
    for picture in pictures:
        shots = []
        for panel, name in picture.panels.items():
            uri = _picture_uri(folder, name)
            if uri is None:
                troubles.append(f"The picture {name} of {picture.clip} cannot be read; it is left out.")
                continue
            text = f"{panel}: {picture.clip}, frame {picture.frame}"
            shots.append(f'<div><img src="{uri}" alt="{escape(text)}">{escape(panel)}</div>')
        if shots:
            caption = f"<b>{escape(picture.clip)}</b>, frame {escape(picture.frame)}: {escape(picture.caption)}"
            figures.append(
                f'<figure><figcaption>{caption}</figcaption><div class="shots">{"".join(shots)}</div></figure>'
            )
    return figures


def _picture_uri(folder: Path, name: str) -> str | None:
    """Return a picture from the board's folder, encoded anew, or None if it cannot be read or lies elsewhere."""
    try:
        with Image.open(under(folder, folder / name)) as image:
            rgb = image.convert("RGB")
    except (OSError, ValueError, SyntaxError, RunError, Image.DecompressionBombError):
        return None
    if rgb.width > MAX_PICTURE_WIDTH:
        height = max(1, round(rgb.height * MAX_PICTURE_WIDTH / rgb.width))
        rgb = rgb.resize((MAX_PICTURE_WIDTH, height), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    rgb.save(buffer, "JPEG", quality=88, subsampling=0, optimize=True)  # labels have sharp edges between colours
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
