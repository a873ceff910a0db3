"""Pictures of the documents: SVG, the same file each time it is drawn from the same numbers."""

from pathlib import Path
from typing import Any


def panels(count: int, width: float, height: float) -> tuple[Any, list[Any]]:
    """A figure and its `count` axes side by side, each `width` x `height` inches, without a frame and with a grid."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    plt.rcParams["svg.hashsalt"] = "mirada"
    figure, axes = plt.subplots(1, count, figsize=(width * count, height), squeeze=False)
    for one in axes[0]:
        one.grid(alpha=0.3)
        one.spines[["top", "right"]].set_visible(False)
    return figure, list(axes[0])


def save(figure: Any, path: Path) -> None:
    import matplotlib.pyplot as plt

    figure.tight_layout()
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
