"""Text towers: token ids to one feature per text, in the space where images have theirs.

CLIP's (Radford et al. 2021, arXiv:2103.00020) reads from left to right and looks at the text's end; SigLIP's (Zhai et
al. 2023, arXiv:2303.15343) sees the whole row, padding included, and looks at its last token. They differ in data only.
"""

from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from mirada.backbones.vit import Activation, Block
from mirada.errors import MiradaError
from mirada.features import Layer, Probe
from mirada.tokenizer import TokenizerDesign, require_keys

__all__ = ["TextDesign", "TextTower"]

TextPooling = Literal["end", "largest", "first", "last"]


@dataclass(frozen=True)
class TextDesign:
    """Everything about a text tower but its weights. The defaults are those of CLIP ViT-B/32.

    Attributes:
        tokenizer: how texts become ids.
        vocabulary_size: rows of the token table.
        width, depth, num_heads: width W, number of blocks, attention heads.
        hidden: width inside the feed-forward layers.
        dim: width D of the feature.
        activation: of the feed-forward layers.
        epsilon: of every LayerNorm.
        causal: whether a token sees only itself and those before it.
        pooling: the token that speaks for the text: the first with the id `end`; the one with the "largest" id, which
            is the end token as long as nobody adds tokens; the "first"; or the "last".
        end: the id that pooling "end" looks for. A text without it is spoken for by its first token.
        projection: from W to D: "linear", "bias" (the same with a bias) or "none" (W is D).
        bias: whether the pair's similarity has a learned bias, as SigLIP's has.
    """

    tokenizer: TokenizerDesign = field(default_factory=TokenizerDesign)
    vocabulary_size: int = 49408
    width: int = 512
    depth: int = 12
    num_heads: int = 8
    hidden: int = 2048
    dim: int = 512
    activation: Activation = "quickgelu"
    epsilon: float = 1e-5
    causal: bool = True
    pooling: TextPooling = "largest"
    end: int | None = None
    projection: Literal["linear", "bias", "none"] = "linear"
    bias: bool = False

    def __post_init__(self) -> None:
        if self.width % self.num_heads:
            raise MiradaError(f"A text tower of width {self.width} does not split into {self.num_heads} heads.")
        if self.pooling not in get_args(TextPooling) or self.projection not in ("linear", "bias", "none"):
            raise MiradaError(f"A text tower cannot pool by {self.pooling!r} with a projection {self.projection!r}.")
        if self.projection == "none" and self.width != self.dim:
            raise MiradaError(f"A text tower from width {self.width} to {self.dim} needs a projection.")
        if (self.pooling == "end") != (self.end is not None):
            raise MiradaError("A text tower needs the id of the end token if it pools that, and only then.")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self) | {"tokenizer": self.tokenizer.to_dict()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "TextDesign":
        """The inverse of `to_dict`. Raises `MiradaError` for keys that are unknown or missing, or a bad value."""
        require_keys("text tower", {field.name for field in fields(cls)}, values)
        return cls(**values | {"tokenizer": TokenizerDesign.from_dict(values["tokenizer"])})


class TextTower(nn.Module):
    """Ids (B, L) to features (B, D).

    `logit_scale` and `logit_bias` (0-dimensional; the latter None without one) belong to the pair of towers: the logit
    of an image and a text is exp(logit_scale) * cosine + logit_bias.
    """

    def __init__(self, design: TextDesign) -> None:
        super().__init__()
        self.design = design
        width, context = design.width, design.tokenizer.context
        self.tokens = nn.Embedding(design.vocabulary_size, width)
        self.position = nn.Parameter(torch.empty(context, width))
        self.blocks = nn.ModuleList(
            Block(width, design.num_heads, design.hidden, design.activation, design.epsilon)
            for _ in range(design.depth)
        )
        self.norm = nn.LayerNorm(width, design.epsilon)
        self.projection = (
            nn.Identity() if design.projection == "none" else nn.Linear(width, design.dim, design.projection == "bias")
        )
        self.logit_scale = nn.Parameter(torch.tensor(2.6593 if not design.bias else 2.3026))  # log 1/0.07, log 10
        self.logit_bias = nn.Parameter(torch.tensor(-10.0)) if design.bias else None
        self.initialise()

    def initialise(self) -> None:
        """As CLIP: small tables; branches that start smaller the deeper the tower is."""
        width, depth = self.design.width, self.design.depth
        nn.init.normal_(self.tokens.weight, std=0.02)
        nn.init.normal_(self.position, std=0.01)
        for name, parameter in self.blocks.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif parameter.ndim == 2:
                out = name.endswith(("attention.proj.weight", "feed_forward.2.weight"))
                nn.init.normal_(parameter, std=width**-0.5 * ((2 * depth) ** -0.5 if out else 1.0))
        if isinstance(self.projection, nn.Linear):
            nn.init.normal_(self.projection.weight, std=width**-0.5)
            if self.projection.bias is not None:
                nn.init.zeros_(self.projection.bias)

    def forward(self, ids: Tensor, *, probe: Probe | None = None) -> Tensor:
        """Features (B, D) of ids (B, L), L at most the design's context.

        `probe` is called with every `Layer`; its patches are the tokens, a grid of one row. Keep what it sees yourself.
        """
        length = ids.shape[1]
        if length > len(self.position):
            raise MiradaError(f"A row of {length} tokens is too long: this text tower reads {len(self.position)}.")
        x = self.tokens(ids) + self.position[:length]
        heads, mask = self.design.num_heads, None
        if self.design.causal:
            mask = torch.full((length, length), -torch.inf, dtype=x.dtype, device=x.device).triu(1)
            mask = mask.expand(heads, -1, -1)
        for index, block in enumerate(self.blocks):
            x, (query, key, value, attended) = block(x, bias=mask)
            if probe is not None:
                probe(Layer(index, x, query, key, value, (1, length), 0, mask, attended))
        return self.projection(self.pool(self.norm(x), ids))  # type: ignore[no-any-return]

    def lengths(self, ids: Tensor) -> Tensor:
        """How many ids of each row (B, L) are read, int64 (B,). A tower that reads from left to right never sees what
        follows the token that speaks for the text; any other sees the whole row."""
        if self.design.causal and self.design.pooling in ("largest", "end"):
            return self.place(ids) + 1
        return torch.full((len(ids),), ids.shape[1], device=ids.device)

    def without_padding(self, ids: Tensor) -> Tensor:
        """Rows without the columns that none of them reads: the features stay the same, and cost less."""
        return ids[:, : int(self.lengths(ids).max())]

    def place(self, ids: Tensor) -> Tensor:
        """Where in each row (B, L) the token is that speaks for the text, int64 (B,)."""
        match self.design.pooling:
            case "first":
                return torch.zeros(len(ids), dtype=torch.long, device=ids.device)
            case "last":
                return torch.full((len(ids),), ids.shape[1] - 1, device=ids.device)
            case "largest":
                return ids.argmax(1)
            case "end":
                return ids.eq(self.design.end or 0).int().argmax(1)

    def pool(self, x: Tensor, ids: Tensor) -> Tensor:
        """The token (B, W) that speaks for each text."""
        return x[torch.arange(len(x), device=x.device), self.place(ids)]
