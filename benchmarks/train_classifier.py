"""Train the classifier whose features the decoders are judged by, on images with labels.

    MOGUL_DATA=folder python -m benchmarks train_classifier mnist|fashion-mnist -o FILE

Images are 32×32 and labels those beside them, in files such as train-labels-idx1-ubyte.gz. It
prints the accuracy on the test images, and writes the classifier.
"""

from __future__ import annotations

import argparse
import time

import torch
from torch import Tensor

SIDE = 32


def images_and_labels(name: str, split: str) -> tuple[Tensor, Tensor]:
    """Return images (n, 1024) in (0, 1) and their classes (n,)."""
    from mogul import open_source
    from mogul.data import open_labels

    source = open_source(f"{name}:{split}", size=(SIDE, SIDE), dequantise=False)
    return source.take(torch.arange(len(source))), open_labels(f"{name}:{split}")


def main() -> None:
    """Train, print the accuracy, and write the file."""
    from mogul.evaluation.features import save_classifier, train_classifier

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", choices=("mnist", "fashion-mnist"))
    parser.add_argument("-o", "--output", required=True, help="the file to write")
    parser.add_argument("--epochs", type=int, default=3)
    options = parser.parse_args()
    x, labels = images_and_labels(options.data, "train")
    since = time.perf_counter()
    model = train_classifier(x, labels, (SIDE, SIDE), options.epochs)
    seconds = time.perf_counter() - since
    save_classifier(options.output, model)
    x, labels = images_and_labels(options.data, "test")
    with torch.no_grad():
        said = torch.cat([model(part).argmax(1) for part in x.split(512)])
    accuracy = float((said == labels).double().mean())
    print(f"{options.data}: {accuracy:.2%} of {len(x):,} test images right, {seconds:.0f} s")


if __name__ == "__main__":
    main()
