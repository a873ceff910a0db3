"""Masked patches: paint in what was hidden. SimMIM (Xie et al. 2021, arXiv:2111.09886) on any backbone, MAE (He et al.
2021, arXiv:2111.06377) on those that can drop tokens."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mirada.backbones.vit import Block, sincos_positions
from mirada.data.augment import Augmentation, augmentation
from mirada.data.samples import Samples
from mirada.errors import MiradaError
from mirada.objectives.base import Encoder, Objective
from mirada.objectives.masks import block_masks, covered, hide, of_whole_patches, random_masks

__all__ = ["Masked", "patchify"]

RATIOS = {"simmim": 0.6, "mae": 0.75}  # the papers' choices
SHAPES = {"random": random_masks, "blocks": block_masks}


def views(samples: Samples, transform: Augmentation) -> dict[str, Tensor]:
    """The image."""
    return {"image": samples.view(transform)}


def patchify(images: Tensor, side: int) -> Tensor:
    """Images (B, C, H * side, W * side) as the pixels of their patches, (B, H, W, C * side * side)."""
    return F.pixel_unshuffle(images, side).permute(0, 2, 3, 1)


class Masked(Objective):
    """Reconstruction of hidden patches; nothing is asked about the others.

    Args:
        method: "simmim" puts a learned token in the place of hidden patches and predicts pixels linearly, with the
            absolute error (SimMIM, section 3); "mae" drops them, which makes the backbone 1 / (1 - ratio) times
            cheaper, and a small decoder predicts from the others, with the squared error (MAE, section 3).
        ratio: share of hidden patches; by default the method's own.
        shape: "random" patches, or "blocks" of them, as BEiT.
        normalise: whether each patch's pixels become zero mean and unit deviation first, which suits MAE better (its
            section 4.1); by default for "mae" only.
        decoder_dim, decoder_depth, decoder_heads: MAE's decoder.
        augment: a name of `mirada.data.augment.AUGMENTATIONS`, or a dict of its options.
    """

    def __init__(
        self, backbone: Encoder, *, method: str = "simmim", ratio: float | None = None, shape: str = "random",
        normalise: bool | None = None, decoder_dim: int = 128, decoder_depth: int = 2, decoder_heads: int = 4,
        augment: str | dict[str, Any] | Augmentation = "light",
    ) -> None:  # fmt: skip
        super().__init__()
        for what, name, known in (("method", method, RATIOS), ("shape", shape, SHAPES)):
            if name not in known:
                raise MiradaError(f"There is no {what} {name!r} of masked patches: choose {' or '.join(known)}.")
        if method == "mae" and not backbone.drops_tokens:
            raise MiradaError(
                "MAE drops patches, and the convolutions of this backbone need all of them: use a ViT, or "
                "masked(method='simmim'), which fits every backbone."
            )
        self.ratio = RATIOS[method] if ratio is None else ratio
        if not 0 < self.ratio < 1:
            raise MiradaError(f"A ratio of {self.ratio} hides nothing or all: use one between 0 and 1, such as 0.6.")
        self.views = of_whole_patches(partial(views, transform=augmentation(augment)), backbone.stride)
        self.draw, self.stride = SHAPES[shape], backbone.stride
        self.normalise = method == "mae" if normalise is None else normalise
        pixels = 3 * self.stride**2
        self.decoder: Decoder | None = None
        if method == "mae":
            self.decoder = Decoder(backbone.dim, decoder_dim, decoder_depth, decoder_heads, pixels)
        else:
            self.mask_token = nn.Parameter(torch.zeros(backbone.stem_dim))
            self.predict = nn.Linear(backbone.dim, pixels)
            nn.init.trunc_normal_(self.mask_token, std=0.02)

    def forward(self, backbone: Encoder, batch: dict[str, Tensor], progress: float) -> dict[str, Tensor]:
        del progress
        image = batch["image"]
        target = patchify(image, self.stride).float()  # (B, H, W, pixels)
        grid = (target.shape[1], target.shape[2])
        hidden = self.draw(len(image), grid, self.ratio).to(image.device)
        if self.normalise:
            deviation, mean = torch.std_mean(target, -1, keepdim=True)
            target = (target - mean) / (deviation**2 + 1e-6).sqrt()
        stem = backbone.embed(covered(image, hidden))
        if self.decoder is None:
            features = backbone.encode(hide(stem, hidden, self.mask_token)).patches
            error = (self.predict(features).float() - target).abs()
        else:
            places = hidden.flatten(1).int().argsort(dim=1, stable=True)  # those that are seen come first
            keep = places[:, : int((~hidden[0]).sum())]
            features = backbone.encode(stem, keep=keep).patches[:, 0]  # (B, k, D)
            error = (self.decoder(features, places, grid).float() - target) ** 2
        loss = error[hidden].mean()
        blind = target[hidden] - target[hidden].mean(0)  # always says the mean patch
        chance = blind.abs().mean() if self.decoder is None else blind.square().mean()
        return {"loss": loss, "relative_loss": loss.detach() / chance.clamp(min=1e-6), "hidden": hidden.float().mean()}


class Decoder(nn.Module):
    """MAE's: a shallow, narrow transformer over seen patches and mask tokens, with fixed positions."""

    def __init__(self, dim: int, width: int, depth: int, num_heads: int, pixels: int) -> None:
        super().__init__()
        if width % num_heads or width % 4:
            raise MiradaError(f"A decoder of width {width} does not split into {num_heads} heads and 4 parts of a "
                              "position: choose another decoder_dim or decoder_heads.")  # fmt: skip
        self.narrow = nn.Linear(dim, width)
        self.mask_token = nn.Parameter(torch.empty(width))
        nn.init.trunc_normal_(self.mask_token, std=0.02)
        self.blocks = nn.ModuleList(Block(width, num_heads, 4 * width, "gelu", 1e-6) for _ in range(depth))
        self.norm = nn.LayerNorm(width, 1e-6)
        self.predict = nn.Linear(width, pixels)

    def forward(self, seen: Tensor, places: Tensor, grid: tuple[int, int]) -> Tensor:
        """Seen patches (B, k, D) and an order of all places (B, N) that begins with theirs: (B, H, W, pixels)."""
        seen = self.narrow(seen)
        missing = self.mask_token.to(seen.dtype).expand(len(seen), places.shape[1] - seen.shape[1], -1)
        ordered = torch.cat([seen, missing], 1)
        x = torch.zeros_like(ordered).scatter(1, places[..., None].expand_as(ordered), ordered)
        x = x + sincos_positions(x.shape[-1], grid, x.device).to(x.dtype)
        for block in self.blocks:
            x, _ = block(x)
        return self.predict(self.norm(x)).unflatten(1, grid)  # type: ignore[no-any-return]
