"""Probes that are trained by stochastic gradient descent: a linear one for data too large for L-BFGS (the protocol of
DINO, arXiv:2104.14294, section 4.1), and an attentive one, which reads all tokens of an image (Chen et al. 2022,
arXiv:2202.03026, section 4.2; El-Nouby et al. 2024, arXiv:2401.08541, section 3.3)."""

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mirada.data.images import Progress, fits_in_memory
from mirada.data.sources import Source
from mirada.errors import MiradaError
from mirada.evaluate.accuracy import shares_right
from mirada.evaluate.features import Encoded, Labelled
from mirada.evaluate.linear import hold_out, standardised
from mirada.evaluate.predict import evaluation_images, of_all, require_finite
from mirada.model import Model

__all__ = ["LARGE", "AttentiveHead", "attentive", "extract_tokens", "linear_by_descent"]

LARGE = 200_000  # training images from which on the linear probe is trained by descent
BATCH = 256
LINEAR_RATES = (0.01, 0.03, 0.1, 0.3, 1.0)  # of SGD with momentum 0.9
ATTENTIVE_RATES = (3e-4, 1e-3, 3e-3)  # of AdamW
LINEAR_EPOCHS, ATTENTIVE_EPOCHS = 20, 15
FEWEST = 400  # steps, however few images there are


def linear_by_descent(
    known: Labelled, asked: Labelled, classes: int, *, seed: int = 0, on_progress: Progress | None = None
) -> Iterator[tuple[str, float]]:  # fmt: skip
    """As `mirada.evaluate.linear.linear`, but ("learning_rate", the one that was chosen) instead of C."""
    train, test = (torch.from_numpy(part) for part in standardised(known.features.numpy(), asked.features.numpy()))

    def make() -> tuple[nn.Module, Callable[[float], torch.optim.Optimizer]]:
        head = nn.Linear(train.shape[1], classes)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        return head, lambda rate: torch.optim.SGD(head.parameters(), rate, momentum=0.9)

    known, asked = Labelled(train, known.labels), Labelled(test, asked.labels)
    yield from probe(make, known, asked, LINEAR_RATES, LINEAR_EPOCHS, seed, on_progress)


def attentive(
    known: Labelled, asked: Labelled, classes: int, *, seed: int = 0, on_progress: Progress | None = None
) -> Iterator[tuple[str, float]]:  # fmt: skip
    """The same of an `AttentiveHead` on tokens: features are (n, N, D) here."""

    def make() -> tuple[nn.Module, Callable[[float], torch.optim.Optimizer]]:
        head = AttentiveHead(known.features.shape[-1], classes)
        return head, lambda rate: torch.optim.AdamW(head.parameters(), rate, weight_decay=0.05)

    yield from probe(make, known, asked, ATTENTIVE_RATES, ATTENTIVE_EPOCHS, seed, on_progress)


class AttentiveHead(nn.Module):
    """One learned query attends to the tokens (B, N, D); what it finds is classified linearly. Tokens are normalised
    first, so that networks without a final norm can be compared."""

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        self.num_heads = dim // 64 if dim % 64 == 0 else 1
        self.query = nn.Parameter(0.02 * torch.randn(dim))
        self.norm = nn.LayerNorm(dim)
        self.key_value = nn.Linear(dim, 2 * dim)
        self.classify = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, classes))

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = self.norm(tokens.float())
        key, value = self.key_value(tokens).unflatten(-1, (2, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        query = self.query.view(1, self.num_heads, 1, -1).expand(len(tokens), -1, -1, -1)
        found = F.scaled_dot_product_attention(query, key, value)  # (B, heads, 1, D / heads)
        logits: Tensor = self.classify(found.flatten(1))
        return logits


def extract_tokens(
    model: Model, source: Source, *, batch: int = 256, exact_pixels: bool = False, strict: bool = False,
    on_progress: Progress | None = None,
) -> Encoded:  # fmt: skip
    """All output tokens of every image, float16 (n, N, D), held in memory and not kept for later. Raises `MiradaError`
    where memory is not enough, or tokens are not finite."""
    images = evaluation_images(model, source, exact_pixels=exact_pixels, strict=strict, keep=False)

    @torch.no_grad()
    def tokens(pixels: Tensor) -> Tensor:
        features = model.backbone(pixels.to(model.device))
        return torch.cat([features.prefix, features.patches.flatten(1, 2)], 1).half()

    one = tokens(torch.zeros(1, 3, *model.preprocess.size))
    if not fits_in_memory(len(images), 2 * one.numel()):
        raise MiradaError(
            f"The tokens of {len(images):,} images would take {2e-9 * one.numel() * len(images):.0f} GB of memory: use "
            "--probe linear, or fewer images."
        )
    kept, rows = of_all(tokens, model, images, np.arange(len(images)), batch, "encoding", on_progress)
    encoded = Encoded(rows, images.usable[kept], sorted(images.skipped.items()))
    require_finite(rows, encoded.places, model, source)
    return encoded


def probe(
    make: Callable[[], tuple[nn.Module, Callable[[float], torch.optim.Optimizer]]], known: Labelled, asked: Labelled,
    rates: tuple[float, ...], epochs: int, seed: int, on_progress: Progress | None,
) -> Iterator[tuple[str, float]]:  # fmt: skip
    """Train a head of `make` at each rate on four fifths of `known`, then one at the best rate on all of it."""
    fitted, held_out = hold_out(known.labels.numpy(), seed)
    best = rates[len(rates) // 2]
    if len(held_out):
        inner, outer = torch.from_numpy(fitted), torch.from_numpy(held_out)
        asked_of_outer = Labelled(known.features[outer], known.labels[outer])
        scores = []
        for number, rate in enumerate(rates):
            said = log_shares(train(make, known, inner, rate, epochs, seed), asked_of_outer.features).argmax(1)
            scores.append(float((said == asked_of_outer.labels).float().mean()))
            if on_progress is not None:
                on_progress("fitting", number + 1, len(rates) + 1)
        best = rates[int(np.argmax(scores))]
    everyone = torch.arange(len(known.labels))
    found = log_shares(train(make, known, everyone, best, epochs, seed), asked.features)
    yield from shares_right(found.argmax(1), asked.labels)
    yield "loss", float(F.nll_loss(found, asked.labels))
    yield "learning_rate", best


def train(
    make: Callable[[], tuple[nn.Module, Callable[[float], torch.optim.Optimizer]]], known: Labelled, rows: Tensor,
    rate: float, epochs: int, seed: int,
) -> nn.Module:  # fmt: skip
    """A head, trained on those rows, which may be too many to copy, with a rate that falls to 0 by a cosine."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head, optimiser_at = make()
        optimiser = optimiser_at(rate)
        each = math.ceil(len(rows) / BATCH)
        epochs = max(epochs, math.ceil(FEWEST / each))
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs * each)
        for _ in range(epochs):
            for part in torch.split(rows[torch.randperm(len(rows))], BATCH):
                optimiser.zero_grad()
                loss = F.cross_entropy(head(known.features[part]), known.labels[part])
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                schedule.step()
    return head.eval()


@torch.no_grad()
def log_shares(head: nn.Module, features: Tensor) -> Tensor:
    """Log probabilities (n, classes)."""
    return torch.cat([head(part).log_softmax(1) for part in torch.split(features, 4 * BATCH)]).double()
