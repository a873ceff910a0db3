"""SwAV (Caron et al. 2020, arXiv:2006.09882): from one view of an image, predict to which prototypes another belongs.

With a RegNetY it is the recipe of SEER (Goyal et al. 2021, arXiv:2103.01988).
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from mirada.errors import MiradaError
from mirada.objectives.base import Encoder, Objective
from mirada.objectives.crops import Distortion, across_crops, crop_names, multi_crop, require_prototypes
from mirada.objectives.heads import Prototypes, projector
from mirada.objectives.sinkhorn import sinkhorn
from mirada.processes import gathered, processes, rank

__all__ = ["SwAV"]


class SwAV(Objective):
    """Swapped prediction (equation 2, generalised to several crops by section 3.2).

    Args:
        distortion: of the two large crops, and `small_distortion` of the others.
        small, small_share: how many small crops there are, and their side over that of the large ones.
        prototypes: K.
        temperature: of predictions; `epsilon` smooths the assignments (appendix A.1). The paper's, for millions of
            images, is 0.05, with which small networks on small pictures may give every image the same answer.
        queue: how many features of earlier batches take part in the assignment, for batches much smaller than K; 0 is
            off. They do from `queue_start` of the training on (section 4.2 and appendix A.1).
        freeze: share of the training in which prototypes keep their place (appendix A.1).
        hidden, out: widths of the projection head.
    """

    divisible = False

    def __init__(
        self, backbone: Encoder, *, distortion: Distortion = "dino", small_distortion: Distortion = "dino-small",
        small: int = 4, small_share: float = 0.5, prototypes: int = 256, temperature: float = 0.1,
        epsilon: float = 0.02, queue: int = 0, queue_start: float = 0.15, freeze: float = 0.01, hidden: int = 512,
        out: int = 128,
    ) -> None:  # fmt: skip
        super().__init__()
        require_prototypes(prototypes, temperature, epsilon)
        if queue < 0:
            raise MiradaError(f"There cannot be a queue of {queue} features: use 0 or more.")
        self.views = multi_crop(
            distortion, distortion, small_distortion, count=small, share=small_share, stride=backbone.stride
        )
        self.pooled = crop_names(small)
        self.temperature, self.epsilon, self.freeze, self.queue_start = temperature, epsilon, freeze, queue_start
        self.head = projector(backbone.dim, hidden, out, norm=True)
        self.prototypes = Prototypes(out, prototypes)
        self.register_buffer("queue", torch.zeros(2, queue, out))
        self.register_buffer("queued", torch.zeros((), dtype=torch.long))

    def forward(self, backbone: Encoder, batch: dict[str, Tensor], progress: float) -> dict[str, Tensor]:
        crops = [batch[name] for name in self.pooled]
        count = len(crops[0])
        features = self.head(torch.cat([backbone.pooled(crop) for crop in crops])).float()
        scores = self.prototypes(features, frozen=progress < self.freeze).view(len(crops), count, -1)  # (V, B, K)
        targets = torch.stack([self._assign(number, features.view(len(crops), count, -1)[number], progress)
                               for number in (0, 1)])  # fmt: skip
        predicted = F.log_softmax(scores / self.temperature, -1)
        return across_crops(targets, predicted)

    @torch.no_grad()
    def answers(self, backbone: Encoder, images: Tensor) -> Tensor:
        return sinkhorn(self.prototypes(self.head(backbone.pooled(images)).float()), self.epsilon)

    @torch.no_grad()
    def _assign(self, number: int, features: Tensor, progress: float) -> Tensor:
        """Assignments (B, K) of the features (B, out) of a large crop, among those in the queue when it is full. All
        processes hold the same queue, and each brings its share of it."""
        features = F.normalize(features.detach(), dim=1)
        queue, rows = self.get_buffer("queue")[number], features
        if queue.shape[0] and progress >= self.queue_start and int(self.get_buffer("queued")) >= queue.shape[0]:
            rows = torch.cat([features, queue[rank() :: processes()]])
        assigned = sinkhorn(self.prototypes(rows), self.epsilon)[: len(features)]
        if queue.shape[0] and self.training:
            newest = gathered(features)
            queue.copy_(torch.cat([newest, queue])[: queue.shape[0]])
            if number == 1:
                self.get_buffer("queued").add_(len(newest))
        return assigned
