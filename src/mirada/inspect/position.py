"""How like each other the places of patches are to a transformer: cosines of its position embeddings (Dosovitskiy et
al. 2021, arXiv:2010.11929, figure 7)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from mirada.backbones.vit import ViT
from mirada.errors import MiradaError
from mirada.features import Backbone

__all__ = ["position_similarity"]


@torch.no_grad()
def position_similarity(backbone: Backbone, grid: tuple[int, int] | None = None) -> Tensor:
    """Cosines (H, W, H, W), from -1 to 1: [i, j] is a map of how like the embedding of row i, column j all others are.

    `grid` is that of an image of another size, for which a learned table is resampled as the model itself does it; by
    default the table's own. Raises `MiradaError` for a model that does not add an embedding to its patches.
    """
    name = type(backbone).__name__
    if not isinstance(backbone, ViT):
        raise MiradaError(f"A {name} adds no position embedding to its patches: look at its attention_distances or its "
                          "receptive_field instead.")  # fmt: skip
    rows, columns = grid or backbone.grid
    table = backbone.position_table((rows, columns))
    if table is None:
        instead = "turns queries and keys by their place" if backbone.positions == "rotary" else "knows no places"
        raise MiradaError(f"This {name} adds no position embedding, it {instead}: look at its attention_distances.")
    unit = F.normalize(table[0].float(), dim=1)
    return (unit @ unit.mT).view(rows, columns, rows, columns)
