"""Draw base labels, refined labels and truth of one frame of a run side by side, as in the README.

python examples/side_by_side.py runs/demo docs/demo.png --frame 00000000
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from sam2vss.artifacts import RunFolder
from sam2vss.images import read_image, read_label_map
from sam2vss.overlay import draw_overlay

GAP_PX = 6
CAPTION_PX = 20


def main() -> None:
    """Read one frame of a run and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--frame", default="00000000")
    options = parser.parse_args()
    run = RunFolder.open(options.run)
    video = run.info["clips"][0]["name"]
    image = read_image(run.preview_path(video, options.frame))
    panels = {"picture": image}
    for caption, path in (
        ("base", run.base_path(video, options.frame)),
        ("refined", run.label_path(video, options.frame)),
        ("truth", run.truth_path(video, options.frame)),
    ):
        if path.exists():
            panels[caption] = draw_overlay(image, read_label_map(path, run.label_space), run.label_space, alpha=0.75)
    height, width = image.shape[:2]
    canvas = np.full((height + CAPTION_PX, len(panels) * (width + GAP_PX) - GAP_PX, 3), 255, np.uint8)
    for column, panel in enumerate(panels.values()):
        left = column * (width + GAP_PX)
        canvas[CAPTION_PX:, left : left + width] = panel
    picture = Image.fromarray(canvas)
    draw = ImageDraw.Draw(picture)
    for column, caption in enumerate(panels):
        draw.text((column * (width + GAP_PX) + 4, 4), caption, fill=(40, 40, 40))
    picture.save(options.out, optimize=True)


if __name__ == "__main__":
    main()
