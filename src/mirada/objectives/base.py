"""What an objective is: it makes its own views of a batch, owns its own heads, and returns a loss."""

from collections.abc import Callable
from typing import Any, Protocol

from torch import Tensor, nn

from mirada.data.samples import Samples
from mirada.features import Backbone, Features, Probe

__all__ = ["Encoder", "Objective", "Views"]

Views = Callable[[Samples], dict[str, Tensor]]


class Encoder(Protocol):
    """A backbone as an objective sees it: `Backbone` itself, or a Learner's, which remembers shared forwards."""

    dim: int
    stem_dim: int
    stride: int

    def __call__(self, images: Tensor, *, probe: Probe | None = None) -> Features: ...
    def embed(self, images: Tensor) -> Tensor: ...
    def encode(self, patches: Tensor, *, keep: Tensor | None = None, probe: Probe | None = None) -> Features: ...


class Objective(nn.Module):
    """Base of all objectives. The constructor takes the backbone, to know its widths, and never keeps it: its keyword
    arguments are the objective's whole configuration.

    Attributes:
        views: a plain picklable function of a batch; its result is `forward`'s `batch`.
        encoded: names of those views that `forward` sends through the whole backbone as they are. A Learner runs all
            of them, for all its objectives, in one forward per image shape.
    """

    views: Views
    encoded: tuple[str, ...] = ()

    def forward(self, backbone: Encoder, batch: dict[str, Tensor], progress: float) -> dict[str, Tensor]:
        """{"loss": scalar, ...}; the other scalars are logged. `progress` is 0 at the start of training and 1 at its
        end."""
        raise NotImplementedError

    def after_step(self, backbone: Encoder, progress: float) -> None:
        """For state that follows the weights, such as a teacher; called after each optimiser step."""

    def evaluated(self) -> Backbone | None:
        """The backbone that the method's authors evaluate, where that is not the trained one but a teacher; it becomes
        the run's model."""
        return None

    def __call__(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        result: dict[str, Tensor] = super().__call__(*args, **kwargs)
        return result
