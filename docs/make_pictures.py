"""Draw the README's picture and those of recipes: `python docs/make_pictures.py`."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from mogul import EM, GaussianMixture, fit, initialise, open_source
from mogul.data import hide_half
from mogul.report import tile
from mogul.tasks import inpaint

HERE = Path(__file__).resolve().parent
OUTPUT = HERE / "pictures" / "digits.png"
RECIPES = {"odd_images.md": "odd.png", "inpaint.md": "inpainted.png"}
SIDE = 6


def panels() -> list[tuple[str, np.ndarray]]:
    """Return (title, picture) pairs from a mixture fitted to scikit-learn's digits."""
    train, test = open_source("digits"), open_source("digits:test")
    model = GaussianMixture(20, 64, covariance="mfa", rank=4)
    initialise(model, train)
    fit(model, train, EM(), passes=20)
    model.requires_grad_(False)
    mixture, n = model(), SIDE * SIDE
    x = test.take(range(n))
    observed = hide_half(n, (8, 8), "right")
    filled = inpaint(mixture, x, observed)
    spread = filled.deviation / filled.deviation.max()
    rows = {
        "real digits": x,
        "samples": mixture.sample((n,), noise=False, seed=0),
        "half hidden": torch.where(observed, x, 0.5),
        "filled in": filled.mean,
        "uncertainty": spread,
    }
    return [(title, tile(train.to_pixels(r), SIDE)) for title, r in rows.items()]


def main() -> None:
    """Write the picture."""
    drawn = panels()
    figure = Figure(figsize=(2.6 * len(drawn), 2.9), layout="constrained")
    for axes, (title, picture) in zip(figure.subplots(1, len(drawn)), drawn, strict=True):
        axes.imshow(picture, cmap="gray", vmin=0, vmax=255)
        axes.set_title(title, fontsize=13)
        axes.set_axis_off()
    figure.savefig(OUTPUT, dpi=100)
    for page, picture in RECIPES.items():
        of_recipe(HERE / "recipes" / page, picture)


def of_recipe(page: Path, picture: str) -> None:
    """Run the code of a recipe, and keep a picture that it writes."""
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
            exec(compile(block, page.name, "exec"), {})
        shutil.copy(picture, HERE / "pictures" / picture)
        os.chdir(HERE)


if __name__ == "__main__":
    main()
