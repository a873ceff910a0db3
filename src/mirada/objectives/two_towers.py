"""What CLIP and SigLIP share: an image tower and a text tower into one space, trained on images with captions."""

import math
from collections.abc import Sequence
from functools import lru_cache, partial
from hashlib import blake2b
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mirada.data.augment import Augmentation, augmentation
from mirada.data.dataset import Captions
from mirada.data.samples import Samples
from mirada.errors import MiradaError
from mirada.learned_tokenizer import learn_tokenizer
from mirada.model import Model
from mirada.objectives.base import Encoder
from mirada.objectives.contrast import Contrast
from mirada.processes import gathered, processes
from mirada.text import TextDesign, TextTower
from mirada.tokenizer import Tokenizer

__all__ = ["Pairs", "TwoTowers"]

HOTTEST = math.log(100)  # that CLIP's scale may become (arXiv:2103.00020, section 2.5)


class Pairs(NamedTuple):
    """What is known of a data set's captions, and the model that training starts from, if there is one."""

    captions: Sequence[Captions]
    start: Model | None = None


class TwoTowers(Contrast):
    """The text tower of the model that training starts from, or else a small one with a tokenizer of its own, learned
    from the captions.

    Of an image's captions `each` are drawn at a time, and the loss is their mean. Two images whose captions are the
    same, or that were given the same one, are neither partners nor others of each other. Images without any take no
    part, and a batch in which fewer than two have one teaches nothing.

    Args:
        pairs: given by the data.
        dim: width of the common space; like all widths and sizes below, of a new text tower only.
        width, depth, num_heads: of the text tower.
        each: captions that are drawn for an image. Reading words costs less than seeing images, so data with many
            captions an image are learned in fewer steps with several of them.
        vocabulary: most tokens that are learned.
        context: tokens that are read of a caption.
        locked: whether the text tower keeps its weights; for the image tower see `--freeze`. With both towers of a
            published model locked in turn it is LiT (Zhai et al. 2021, arXiv:2111.07991) or its reverse.
        hardness: how much more those count that are hard to tell apart: see `mirada.objectives.contrast.harder`.
        augment: a name of `mirada.data.augment.AUGMENTATIONS`, or a dict of its options.
    """

    pooled = ("image",)
    biased: bool  # whether logits have a bias

    def __init__(
        self, backbone: Encoder, *, pairs: Pairs, dim: int = 256, width: int = 128, depth: int = 4, num_heads: int = 4,
        vocabulary: int = 4096, context: int = 32, locked: bool = False, hardness: float = 0.0, each: int = 1,
        augment: str | dict[str, Any] | Augmentation = "light",
    ) -> None:  # fmt: skip
        super().__init__()
        self.hardness, start = hardness, pairs.start
        if each < 1:
            raise MiradaError(f"An image cannot have {each} captions drawn at a time: use each=1 or more.")
        texts = [caption for captions in pairs.captions for caption in captions]
        if not texts:
            raise MiradaError(
                "None of these images has a caption: put a .txt beside each image, or use a table with a column "
                "caption."
            )
        if start is not None and start.text is not None and start.tokenizer is not None:
            require_kind(start.text.design, self.biased)
            self.text, self.tokenizer = start.text, start.tokenizer
            self.project: nn.Module = nn.Identity() if start.projection is None else start.projection
        else:
            tokens, words, size = learn_tokenizer(texts, vocabulary, context)
            self.text = TextTower(TextDesign(
                tokens, size, width, depth, num_heads, 4 * width, dim, "gelu", 1e-6, pooling="end", end=tokens.end,
                bias=self.biased,
            ))  # fmt: skip
            self.tokenizer = Tokenizer(tokens, words)
            self.project = nn.Linear(backbone.dim, dim, bias=False)
            nn.init.normal_(self.project.weight, std=backbone.dim**-0.5)
        if locked:
            for name, parameter in self.text.named_parameters():
                parameter.requires_grad_(name in ("logit_scale", "logit_bias"))  # they are both towers'
        self.hottest = math.inf if self.biased else max(HOTTEST, float(self.text.logit_scale.detach()))
        self.views = partial(views, transform=augmentation(augment), tokenizer=self.tokenizer, each=each)

    def represent(self, backbone: Encoder, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        image = self.project(backbone.pooled(batch["image"]))
        count, each, _ = batch["ids"].shape
        text = self.text(self.text.without_padding(batch["ids"].flatten(0, 1))).view(count, each, -1)
        names = ("caption", "captions", "there")
        unit = {"image": F.normalize(image.float(), dim=1), "text": F.normalize(text.float(), dim=2)}
        return unit | {name: batch[name].to(image.device) for name in names}

    def compare(self, samples: dict[str, Tensor], progress: float) -> dict[str, Tensor]:
        del progress
        there = gathered(samples["there"])
        if len(there) < 2:
            raise MiradaError("Words tell images of a batch apart, and there is one: use a batch of 2 or more, and "
                              "at least 2 images to train on.")  # fmt: skip
        scale = {"logit_scale": self.text.logit_scale.detach().exp()}
        if not math.isinf(self.hottest):
            scale["logit_bound"] = torch.tensor(math.exp(self.hottest))
        if int(there.sum()) < 2:
            nothing = 0 * (samples["image"].sum() + samples["text"].sum())
            return {"loss": nothing, "others": torch.zeros(()), **scale}
        image, text, caption, captions = (
            gathered(samples[name])[there] for name in ("image", "text", "caption", "captions")
        )
        parts = []
        for drawn in range(text.shape[1]):
            same = (caption[:, None, drawn] == caption[:, drawn]) | (captions[:, None] == captions)
            same.fill_diagonal_(False)
            parts.append(self.contrast(image, text[:, drawn], same if bool(same.any()) else None))
        result = {name: torch.stack([part[name] for part in parts]).mean() for name in parts[0]}
        loss = result["loss"]
        whole = loss + (processes() - 1) * (loss - loss.detach())  # see `gathered`
        return {**result, **scale, "loss": whole, "others": torch.tensor(len(image) - 1.0)}

    def contrast(self, image: Tensor, text: Tensor, same: Tensor | None) -> dict[str, Tensor]:
        """{"loss", "relative_loss", "accuracy"} of pairs of unit vectors (N, D); `same`, bool (N, N), do not count."""
        raise NotImplementedError

    @torch.no_grad()
    def after_step(self, backbone: Encoder, progress: float) -> None:
        del backbone, progress
        self.text.logit_scale.clamp_(max=self.hottest)


def require_kind(design: TextDesign, biased: bool) -> None:
    """Raise `MiradaError` for a model that was trained with the other loss: its scores would lose their meaning."""
    if design.bias and not biased:
        raise MiradaError("This model's scores have a bias, as SigLIP's: train it with the objective siglip, not clip.")
    if biased and not design.bias:
        raise MiradaError("This model's scores have no bias, as CLIP's: train it with the objective clip, not siglip.")


def views(samples: Samples, transform: Augmentation, tokenizer: Tokenizer, each: int) -> dict[str, Tensor]:
    """The image; the ids (B, each, L) of some of its captions, again from the first where they are too few; int64 names
    of those (B, each) and of all of them (B,); and bool (B,), whether there is any."""
    texts: list[str] = []
    for captions in samples.captions:
        order = torch.randperm(max(1, len(captions)), generator=samples.generator).tolist()
        texts += [captions[order[drawn % len(order)]] if captions else "" for drawn in range(each)]
    return {
        "image": samples.view(transform), "ids": tokenizer(texts).view(len(samples), each, -1),
        "caption": torch.tensor([number(text) for text in texts]).view(len(samples), each),
        "captions": torch.tensor([number("\n".join(sorted(captions))) for captions in samples.captions]),
        "there": torch.tensor([bool(captions) for captions in samples.captions]),
    }  # fmt: skip


@lru_cache(maxsize=1 << 16)
def number(text: str) -> int:
    """The same number for the same text, but for case."""
    return int.from_bytes(blake2b(text.lower().encode(errors="surrogatepass"), digest_size=7).digest(), "little")
