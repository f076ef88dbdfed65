"""Denoising by posterior means of patches: PSNR against components, rank, one Gaussian, no model.

    python -m benchmarks denoising                     # scikit-learn's two photographs
    MOGUL_DATA=folder python -m benchmarks denoising --pictures faces

Mixtures of factor analysers are fitted to centred 8×8 patches by `TruncatedEM`, which makes dense
E-steps where components are few; rank 0 is the diagonal family. Photographs are cut in two: models
see patches of the left halves alone, and restore the right halves; with `--pictures other` they see
one photograph, and restore the other. Of faces, models see training images and restore test images.
PSNR is the mean over test pictures, of pixels of 0 to 255, noise neither clipped nor rounded;
likelihoods are of 20,000 patches of the test pictures.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from mogul import EM, GaussianMixture, Mixture, TruncatedEM, fit, initialise, open_source
from mogul.algorithms import mean_log_likelihood
from mogul.data import ArraySource, PixelScale, from_levels, random_patches
from mogul.evaluation import peak_signal_to_noise
from mogul.report import DenoisedPicture, draw_psnr
from mogul.tasks import denoise_image

COLUMNS = ("components", "rank", "PSNR (dB)", "test nats per patch", "fit s", "denoise s")
PEAK = 255 / 256  # in the units of mogul's pixels
HELD_OUT = 20_000
SHOWN = -1  # test picture of which a piece is drawn
CROP = (slice(85, 285), slice(0, 200))


@dataclass(frozen=True)
class Task:
    """Pictures to learn from and to restore, uint8, and the latter with noise, (0, 1)."""

    train: list[np.ndarray]
    test: list[np.ndarray]
    noise: float  # grey levels
    centred: bool = True  # whether patches are less their mean

    def patches(self, pictures: list[np.ndarray], n: int, seed: int = 0) -> ArraySource:
        """Return random patches of pictures as rows."""
        drawn = random_patches(pictures, n, centred=self.centred, seed=seed)
        return ArraySource(drawn.reshape(n, -1))

    def noisy(self) -> list[Tensor]:
        """Return the test pictures with noise."""
        generator = torch.Generator().manual_seed(0)
        clean = [torch.from_numpy(from_levels(picture)) for picture in self.test]
        return [c + self.noise / 256 * torch.randn(c.shape, generator=generator) for c in clean]

    def psnr(self, pictures: list[Tensor]) -> float:
        """Return the mean PSNR of restored test pictures, in dB."""
        each = [
            peak_signal_to_noise(torch.from_numpy(from_levels(clean)), picture, PEAK)
            for clean, picture in zip(self.test, pictures, strict=True)
        ]
        return float(np.mean(each))


def photographs(noise: float) -> Task:
    """Return scikit-learn's photographs in grey: left halves to learn, right halves to restore."""
    grey = _grey()
    middle = grey[0].shape[1] // 2
    return Task([g[:, :middle] for g in grey], [g[:, middle:] for g in grey], noise)


def other(noise: float) -> Task:
    """Return one of them to learn from, and the other to restore."""
    china, flower = _grey()
    return Task([china], [flower], noise)


def _grey() -> list[np.ndarray]:
    from sklearn.datasets import load_sample_images

    return [np.asarray(Image.fromarray(i).convert("L")) for i in load_sample_images().images]


def faces(noise: float) -> Task:
    """Return grey faces of CelebA: 2,000 to learn from, 50 others to restore."""

    def read(split: str, n: int) -> list[np.ndarray]:
        source = open_source(f"celeba:{split}", colour=False, dequantise=False, limit=n)
        return list(source.to_pixels(source.take(range(n))))

    return Task(read("train", 2000), read("test", 50), noise)


TASKS = {"photographs": photographs, "other": other, "faces": faces}


def learn(task: Task, components: int, rank: int | None, rows: int, passes: int) -> Mixture:
    """Fit a mixture of factor analysers, or, without a rank, one of full covariances."""
    source = task.patches(task.train, rows)
    family = {None: "full", 0: "diagonal"}.get(rank, "mfa")
    model = GaussianMixture(components, source.n_features, covariance=family, rank=rank or None)
    initialise(model, source)
    algorithm = EM() if rank is None else TruncatedEM(candidates=3, neighbours=15)
    fit(model, source, algorithm, passes=passes)
    model.requires_grad_(False)
    return model()


def measure(
    task: Task, components: int, rank: int | None, rows: int, passes: int
) -> tuple[DenoisedPicture, list[Tensor], list[str]]:
    """Fit, restore the test pictures, and return what was reached and the cells of its row."""
    since = time.perf_counter()
    mixture = learn(task, components, rank, rows, passes)
    fitted = time.perf_counter()
    restored = [denoise_image(mixture, noisy, task.noise / 256) for noisy in task.noisy()]
    done = time.perf_counter()
    likelihood = mean_log_likelihood(mixture, task.patches(task.test, HELD_OUT, seed=1))
    psnr = task.psnr(restored)
    name = f"{components:,} × {rank}" if rank is not None else "one Gaussian"
    cells = [
        f"{components:,}", "full" if rank is None else str(rank), f"{psnr:.2f}",
        f"{likelihood:.1f}", f"{fitted - since:.0f}", f"{done - fitted:.1f}",
    ]  # fmt: skip
    return DenoisedPicture(name, pixels(restored[SHOWN]), psnr, components, rank), restored, cells


def pixels(picture: Tensor) -> np.ndarray:
    """Return values of (0, 1) as 8-bit pixels."""
    return PixelScale(256).to_pixels(picture)


def draw(path: Path, task: Task, wiener: DenoisedPicture, models: list[DenoisedPicture]) -> None:
    """Draw a test picture clean, noisy and restored, and PSNR along components and rank."""
    figure = Figure(figsize=(12, 7.4), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(1.05, 1))
    noisy, best = task.noisy(), max(models, key=lambda found: found.psnr)
    clean = torch.from_numpy(from_levels(task.test[SHOWN][CROP]))

    def own(picture: Tensor) -> str:
        return f"{peak_signal_to_noise(clean, picture, PEAK):.1f} dB"

    def levels_of(picture: np.ndarray) -> Tensor:
        return torch.from_numpy(from_levels(picture[CROP]))

    shown = [
        ("clean", task.test[SHOWN], ""),
        (f"noisy, σ = {task.noise:g}/255", pixels(noisy[SHOWN]),
         own(noisy[SHOWN][CROP])),
        ("one Gaussian (Wiener filter)", wiener.pixels, own(levels_of(wiener.pixels))),
        (f"{best.components:,} factor analysers of rank {best.rank}", best.pixels,
         own(levels_of(best.pixels))),
    ]  # fmt: skip
    for axes, (title, picture, psnr) in zip(top.subplots(1, len(shown)), shown, strict=True):
        axes.imshow(picture[CROP], cmap="gray", vmin=0, vmax=255)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel(psnr, fontsize=10)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
    left, right = bottom.subplots(1, 2)
    levels = {"no model": task.psnr(noisy), "one Gaussian": wiener.psnr}
    draw_psnr(left, models, "components", levels)
    draw_psnr(right, [m for m in models if m.components > 1], "rank", {})
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Print the table, row by row, and draw the picture.

    Raises:
        SystemExit: if a picture is to be drawn of others than photographs.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--pictures", choices=TASKS, default="photographs")
    parser.add_argument("--components", type=int, nargs="+", default=[1, 20, 100, 500, 2000])
    parser.add_argument("--ranks", type=int, nargs="+", default=[0, 2, 5, 10])
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--passes", type=int, default=15)
    parser.add_argument("--noise", type=float, default=25.0, help="in grey levels")
    parser.add_argument("--as-they-are", action="store_true", help="patches with their mean")
    parser.add_argument("-o", "--output", type=Path, help="picture; of photographs only")
    given = parser.parse_args()
    if given.output is not None and given.pictures != "photographs":
        raise SystemExit("the picture is one of photographs: give no output, or take these")
    task = replace(TASKS[given.pictures](given.noise), centred=not given.as_they_are)
    print(f"{torch.get_num_threads()} threads; {given.rows:,} patches, {given.passes} passes")
    print("| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|")
    print(f"| no model | – | {task.psnr(task.noisy()):.2f} | – | – | – |")
    wiener, _, cells = measure(task, 1, None, given.rows, given.passes)
    print("| " + " | ".join(cells) + " |", flush=True)
    models = []
    for components in given.components:
        for rank in given.ranks:
            found, _, cells = measure(task, components, rank, given.rows, given.passes)
            print("| " + " | ".join(cells) + " |", flush=True)
            models.append(found)
    if given.output is not None:
        draw(given.output, task, wiener, models)


if __name__ == "__main__":
    main()
