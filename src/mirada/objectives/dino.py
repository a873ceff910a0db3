"""DINO (Caron et al. 2021, arXiv:2104.14294): match a slow copy of yourself, across crops; with DINOv2's and DINOv3's
additions as options."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mirada.errors import MiradaError
from mirada.features import Backbone, Features
from mirada.objectives.base import Encoder, Objective
from mirada.objectives.crops import Distortion, across_crops, across_hidden, crop_names, multi_crop, require_prototypes
from mirada.objectives.heads import DistillationHead
from mirada.objectives.masks import covered, hide, masks_of_half, of_whole_patches
from mirada.objectives.regularisers import gram, koleo
from mirada.objectives.sinkhorn import sinkhorn
from mirada.objectives.teacher import copy_of, follow, learning_norms, momentum_at, ramp, without_noise
from mirada.processes import summed

__all__ = ["DINO"]


class DINO(Objective):
    """Self-distillation without labels.

    Args:
        first, second, small_distortion: augmentations of the two large crops and of the small ones.
        small, small_share: how many small crops there are, and their side over that of the large ones.
        prototypes: K.
        student_temperature: of predictions.
        teacher_temperature, early_temperature, warm: of targets; it grows from the early one in the first share `warm`.
        momentum: of the teacher; grows to 1 by a cosine.
        centring: "sinkhorn" gives every prototype its share (DINOv2, arXiv:2304.07193), so that answers cannot become
            the same for all prototypes; "mean" subtracts a running mean of the teacher's scores (equation 4), which
            wants a lower learning rate: in short runs at the default one the answers did become uniform.
        centre_momentum: of that mean.
        freeze: share of the training in which the last layer keeps its place.
        hidden, bottleneck: widths of the head.
        masked: weight of iBOT's loss (Zhou et al. 2021, arXiv:2111.07832): predict the teacher's answer for patches
            that the student does not see; 10 to 50% of them in half of the images, as in DINOv2. 0 is off.
        koleo: weight of `koleo` on the first crop's features; DINOv2 takes 0.1. 0 is off.
        gram: weight of `gram` against the teacher as it was at `gram_start` (DINOv3). 0 is off.
    """

    def __init__(
        self, backbone: Backbone, *, first: Distortion = "dino", second: Distortion = "dino-second",
        small_distortion: Distortion = "dino-small", small: int = 4, small_share: float = 0.5, prototypes: int = 1024,
        student_temperature: float = 0.1, teacher_temperature: float = 0.04, early_temperature: float = 0.04,
        warm: float = 0.1, momentum: float = 0.99, centring: str = "sinkhorn", centre_momentum: float = 0.9,
        freeze: float = 0.01, hidden: int = 512, bottleneck: int = 128, masked: float = 0.0, koleo: float = 0.0,
        gram: float = 0.0, gram_start: float = 0.5,
    ) -> None:  # fmt: skip
        super().__init__()
        if centring not in ("mean", "sinkhorn"):
            raise MiradaError(f"There is no centring {centring!r}: choose mean or sinkhorn.")
        require_prototypes(prototypes, student_temperature, teacher_temperature, early_temperature)
        self.views = multi_crop(first, second, small_distortion, count=small, share=small_share, stride=backbone.stride)
        self.crops, self.divisible = crop_names(small), False
        self.pooled = self.crops[2:] if masked or gram else self.crops
        self.encoded = self.crops[:2] if gram and not masked else ()
        self.student_temperature, self.momentum, self.freeze = student_temperature, momentum, freeze
        self.early_temperature, self.teacher_temperature, self.warm = early_temperature, teacher_temperature, warm
        self.centring, self.centre_momentum = centring, centre_momentum
        self.masked, self.koleo, self.gram, self.gram_start = masked, koleo, gram, gram_start
        self.head = DistillationHead(backbone.dim, hidden, bottleneck, prototypes)
        self.teacher, self.teacher_head, self.norms = copy_of(backbone), copy_of(self.head), learning_norms(backbone)
        self.register_buffer("centre", torch.zeros(prototypes))
        if masked:
            self.views = of_whole_patches(self.views, backbone.stride)
            self.mask_token = nn.Parameter(torch.zeros(backbone.stem_dim))
            self.patch_head = DistillationHead(backbone.dim, hidden, bottleneck, prototypes)
            self.teacher_patch_head = copy_of(self.patch_head)
            self.register_buffer("patch_centre", torch.zeros(prototypes))
        if gram:
            self.anchor = copy_of(backbone)
            self.register_buffer("anchored", torch.zeros((), dtype=torch.bool))

    def evaluated(self) -> Backbone:
        return self.teacher

    def train(self, mode: bool = True) -> "DINO":
        super().train(mode)
        if mode:
            without_noise(self.teacher, self.norms)
            if self.gram:
                self.anchor.eval()
        return self

    def forward(self, backbone: Encoder, batch: dict[str, Tensor], progress: float) -> dict[str, Tensor]:
        crops = [batch[name] for name in self.crops]
        count, frozen = len(crops[0]), progress < self.freeze
        temperature = ramp(progress / max(self.warm, 1e-9), self.early_temperature, self.teacher_temperature)
        with torch.no_grad():
            both = torch.cat(crops[:2])
            taught = self.teacher(both) if self.masked else None
            raw = self.teacher_head(self.teacher.pooled(both) if taught is None else taught.pooled).float()
            target = self._target(raw, "centre", temperature).view(2, count, -1)  # (2, B, K)
        masks = None if taught is None else masks_of_half(len(raw), taught.patches.shape[1:3]).to(raw.device)
        large = self._large(backbone, crops[:2], masks) if self.masked or self.gram else []
        pooled = [*(one.pooled for one in large), *(backbone.pooled(crop) for crop in crops[len(large) :])]
        predicted = F.log_softmax(self.head(torch.cat(pooled), frozen).float() / self.student_temperature, 1)
        predicted = predicted.view(len(crops), count, -1)  # (V, B, K)
        result = across_crops(target, predicted)
        if taught is not None and masks is not None:
            result["masked"] = self._masked(large, taught, masks, temperature, frozen)
        if self.koleo:
            result["koleo"] = koleo(pooled[0].float())
        if self.gram and progress >= self.gram_start and bool(self.get_buffer("anchored")):
            with torch.no_grad():
                anchor = self.anchor(both).patches.flatten(1, 2).float()
            result["gram"] = gram(torch.cat([one.patches for one in large]).flatten(1, 2).float(), anchor)
        weights = {"loss": 1.0, "masked": self.masked, "koleo": self.koleo, "gram": self.gram}
        loss = torch.stack([weight * result[name] for name, weight in weights.items() if name in result]).sum()
        return {**result, "loss": loss}

    @torch.no_grad()
    def answers(self, backbone: Encoder, images: Tensor) -> Tensor:  # noqa: ARG002
        return self._target(self.teacher_head(self.teacher.pooled(images)).float(), "centre", self.teacher_temperature)

    @torch.no_grad()
    def after_step(self, backbone: Encoder, progress: float) -> None:
        assert isinstance(backbone, Backbone)
        momentum = momentum_at(progress, self.momentum)
        follow(self.teacher, backbone, momentum)
        follow(self.teacher_head, self.head, momentum)
        if self.masked:
            follow(self.teacher_patch_head, self.patch_head, momentum)
        if self.gram:  # before `gram_start` an anchor is that of a run which this one goes on from
            if progress >= self.gram_start and not bool(self.get_buffer("anchored")):
                self.anchor.load_state_dict(self.teacher.state_dict())
            self.get_buffer("anchored").fill_(progress >= self.gram_start)

    def _target(self, raw: Tensor, centre: str, temperature: float) -> Tensor:
        """The teacher's scores (N, K) as probabilities; the running mean moves."""
        if self.centring == "sinkhorn":
            return sinkhorn(raw, temperature)
        running = self.get_buffer(centre)
        target = ((raw - running) / temperature).softmax(1)
        if self.training:
            mean = summed(raw.sum(0)) / summed(torch.tensor(float(len(raw)), device=raw.device))
            running.lerp_(mean, 1 - self.centre_momentum)
        return target

    def _large(self, backbone: Encoder, crops: list[Tensor], masks: Tensor | None) -> list[Features]:
        """What the student makes of the large crops, of which it may not see all."""
        if masks is None:
            return [backbone(crop) for crop in crops]
        hidden = hide(backbone.embed(covered(torch.cat(crops), masks)), masks, self.mask_token)
        return [Features(*parts) for parts in zip(*(f.chunk(2) for f in backbone.encode(hidden)[:3]), strict=True)]

    def _masked(
        self, large: list[Features], taught: Features, masks: Tensor, temperature: float, frozen: bool
    ) -> Tensor:  # fmt: skip
        """What the student knows of the hidden patches."""
        seen = torch.cat([one.patches for one in large])[masks]
        with torch.no_grad():
            raw = self.teacher_patch_head(taught.patches[masks]).float()
            target = self._target(raw, "patch_centre", temperature)
        scores = self.patch_head(seen, frozen).float() / self.student_temperature
        return across_hidden(target, scores.log_softmax(1), masks)
