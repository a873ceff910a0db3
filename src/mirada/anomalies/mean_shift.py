"""Mean-shifted contrastive adaptation (Reiss & Hoshen 2021, arXiv:2106.03844): a model learns a little of the normal
images before their neighbours are asked for."""

import copy
import math

import torch
from torch import Tensor
from torch.nn import functional as F

from mirada.data.augment import augmentation
from mirada.data.decode import decode, to_canvas
from mirada.data.images import Images, Progress
from mirada.data.loader import Loader
from mirada.data.sources import Source
from mirada.errors import MiradaError
from mirada.model import Model
from mirada.objectives.simclr import contrast

__all__ = ["adapt", "mean_shifted"]

TEMPERATURE = 0.25  # the paper's
BATCH, STEPS, RATE, DECAY = 64, 100, 1e-4, 5e-5
SMALL = 64  # pixels of a side below which views are not blurred: such pictures have nothing to lose
VIEWS = {"base": "simclr", "scale": (0.2, 1.0), "jitter": (0.4, 0.4, 0.4, 0.1)}


def mean_shifted(first: Tensor, second: Tensor, centre: Tensor, angular: bool = True) -> Tensor:
    """The loss of two views, features (B, D) each, around the `centre` (D,) of the normal features at length 1.

    Contrast as in SimCLR, but of directions seen from the centre instead of the origin: what sets images apart grows,
    and all stay near the centre. The angular loss, minus the cosine to the centre (up to its length), is added.
    """
    first, second = F.normalize(first, dim=1), F.normalize(second, dim=1)
    logits, partner = contrast(F.normalize(first - centre, dim=1), F.normalize(second - centre, dim=1), TEMPERATURE)
    loss = F.cross_entropy(logits, partner)
    return loss - (torch.cat([first, second]) @ centre).mean() if angular else loss


def adapt(
    model: Model, normal: Source, features: Tensor, *, steps: int = STEPS, seed: int = 0, batch: int = BATCH,
    on_progress: Progress | None = None,
) -> Model:  # fmt: skip
    """A copy of the model that `steps` of gradient descent have adapted to the normal images, of which `features`
    (N, D) are those before. Batch statistics and the model itself stay as they are.

    Raises `MiradaError` where the loss is not finite.
    """
    centre = F.normalize(features.float(), dim=1).mean(0).to(model.device)
    adapted = copy.deepcopy(model).float().eval()
    adapted.requires_grad_(False)
    trained = [*adapted.backbone.parameters(), *(adapted.projection.parameters() if adapted.projection else ())]
    for parameter in trained:
        parameter.requires_grad_(True)
    height, width = model.preprocess.size
    side = max(height, width)

    def reader(data: bytes) -> tuple[Tensor, float]:
        return to_canvas(decode(data, at_least=side), side)

    images = Images(normal, reader, keep=False)
    mean, std = torch.tensor(model.preprocess.mean), torch.tensor(model.preprocess.std)
    loader = Loader(images, min(batch, len(images)), mean=mean, std=std, seed=seed, device=model.device)
    views = augmentation(VIEWS | ({"blur": 0.0} if side < SMALL else {}))
    optimiser = torch.optim.AdamW(trained, lr=RATE, weight_decay=DECAY)
    for step in range(steps):
        samples = loader.batch(step, (height, width))
        both = torch.cat([samples.view(views, 0), samples.view(views, 1)]).to(model.device)
        with torch.enable_grad():
            first, second = adapted.project(adapted.backbone.pooled(both)).float().chunk(2)
            loss = mean_shifted(first, second, centre)
        if not math.isfinite(float(loss.detach())):
            raise MiradaError(f"Adapting {model.architecture!r} to the normal images diverged at step {step + 1}: use "
                              "the method knn, which changes no weight.")  # fmt: skip
        optimiser.param_groups[0]["lr"] = RATE * 0.5 * (1 + math.cos(math.pi * step / steps))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        if on_progress is not None:
            on_progress("adapting to the normal images", step + 1, steps)
    return adapted.requires_grad_(False).to(next(model.parameters()).dtype)
