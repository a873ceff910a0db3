"""What an objective is: it makes its own views of a batch, owns its own heads, and returns a loss."""

import math
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mirada.data.samples import Samples
from mirada.features import Backbone, Features, Probe

__all__ = ["Encoder", "Objective", "Views", "classified"]

Views = Callable[[Samples], dict[str, Tensor]]


class Encoder(Protocol):
    """A backbone as an objective sees it: `Backbone` itself, or a Learner's, which remembers shared forwards."""

    dim: int
    stem_dim: int
    stride: int
    drops_tokens: bool

    def __call__(self, images: Tensor, *, probe: Probe | None = None) -> Features: ...
    def pooled(self, images: Tensor) -> Tensor: ...
    def embed(self, images: Tensor) -> Tensor: ...
    def encode(self, patches: Tensor, *, keep: Tensor | None = None, probe: Probe | None = None) -> Features: ...


class Objective(nn.Module):
    """Base of all objectives. The constructor takes the backbone, to know its widths, and never keeps it: its keyword
    arguments are the objective's whole configuration.

    Attributes:
        views: a plain picklable function of a batch; its result is `forward`'s `batch`.
        encoded, pooled: names of those views that `forward` sends through the whole backbone as they are, for their
            features or for `Backbone.pooled` alone. A Learner runs all of them, for all its objectives, in one forward
            per image shape.
        divisible: whether the loss of a batch is the mean of those of its parts, or `compare`s them.
    """

    views: Views
    encoded: tuple[str, ...] = ()
    pooled: tuple[str, ...] = ()
    divisible = True

    def forward(self, backbone: Encoder, batch: dict[str, Tensor], progress: float) -> dict[str, Tensor]:
        """{"loss": scalar, "relative_loss": scalar, ...}; all are logged. `progress` is 0 at the start of training and
        1 at its end. The relative loss is over that of one who knows nothing: 1 says that nothing was learned."""
        raise NotImplementedError

    @torch.no_grad()
    def answers(self, backbone: Encoder, images: Tensor) -> Tensor | None:  # noqa: ARG002
        """What the student is taught about whole images (B, C, H, W): probabilities (B, K) of prototypes, or None
        where a method has none. Collapse shows in them."""
        return None

    def after_step(self, backbone: Encoder, progress: float) -> None:
        """For state that follows the weights, such as a teacher; called after each optimiser step."""

    def evaluated(self) -> Backbone | None:
        """The backbone that the method's authors evaluate, where that is not the trained one but a teacher; it becomes
        the run's model."""
        return None

    def __call__(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        result: dict[str, Tensor] = super().__call__(*args, **kwargs)
        return result


def classified(logits: Tensor, label: Tensor) -> dict[str, Tensor]:
    """What `forward` returns where all is one classification among equally frequent classes: logits (B, K), labels
    (B,)."""
    loss = F.cross_entropy(logits, label)
    accuracy = (logits.argmax(1) == label).float().mean()
    return {"loss": loss, "relative_loss": loss.detach() / math.log(logits.shape[1]), "accuracy": accuracy}
