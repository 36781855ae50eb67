"""The picture of a partitioning: who has how much of which class."""

from __future__ import annotations

from pathlib import Path
from typing import Mapping, Sequence

from federation.files import replaced

import numpy as np


def draw_distributions(path: Path, counts: Mapping[str, np.ndarray], classes: Sequence[str]) -> None:
    """Draw partitionings side by side into the file `path`; raises OSError if it cannot be written.

    `counts` has the numbers of images [num_clients, num_classes] by title. Each client is a column: on top, how many
    images it has; below, how many of each class, the darker the more, and white if there is none.
    """
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap, Normalize
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(1.5 + 5.25 * len(counts), 4.5), layout="constrained")
    axes = figure.subplots(
        2, len(counts), sharex="col", sharey="row", squeeze=False, gridspec_kw={"height_ratios": [1, 2]}
    )
    colours = ListedColormap(colormaps["Blues"](np.linspace(0.2, 1, 256)))  # one image is to differ from none
    colours.set_bad("white")
    scale = Normalize(0, max(count.max() for count in counts.values()))
    for column, (title, count) in enumerate(counts.items()):
        total, by_class = axes[:, column]
        total.bar(range(len(count)), count.sum(axis=1), color="0.4")
        total.set_title(title)
        image = by_class.imshow(np.ma.masked_equal(count.T, 0), colours, scale, aspect="auto", interpolation="none")
        by_class.set_xlabel("client (--cid)")
        by_class.set_yticks(range(len(classes)), classes)
        by_class.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0, 0].set_ylabel("images")
    axes[1, 0].set_ylabel("class")
    figure.colorbar(image, ax=axes[1, :], label="images of the class")
    with replaced(path) as file:
        figure.savefig(file, format="png", dpi=100)
