"""One backbone and a weighted sum of objectives: the only module the training loop sees."""

import inspect
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn

from mirada.data.samples import Samples
from mirada.errors import MiradaError
from mirada.features import Backbone, Features, Probe
from mirada.language import Term, sum_of_terms
from mirada.objectives.balance import BALANCES
from mirada.objectives.base import Objective, Views
from mirada.objectives.contrast import Contrast
from mirada.objectives.table import OBJECTIVES
from mirada.objectives.two_towers import TwoTowers

__all__ = ["Learner", "SharedForward"]


class Learner(nn.Module):
    """`Learner(backbone, "dino(prototypes=4096) + 0.5*rotation")`.

    `balance` names a row of `mirada.objectives.balance.BALANCES`; "fixed" keeps the weights as written.
    `facts` are what is known about the data, such as `classes=10`: each reaches the objectives whose constructor has
    an argument of that name, unless the text sets it.

    Raises:
        MiradaError: an unknown objective or option (the nearest is named), or a fact that an objective needs and the
            data do not give.
    """

    def __init__(self, backbone: Backbone, text: str, *, balance: str = "fixed", **facts: Any) -> None:
        super().__init__()
        terms = sum_of_terms(text)
        self.backbone = backbone
        self.objectives = nn.ModuleDict({term.name: build_objective(term, backbone, facts) for term in terms})
        self.weights = {term.name: term.weight for term in terms}
        if balance != "fixed" and len(terms) < 2:
            raise MiradaError(f"There is nothing to balance in {text!r}: write a sum, such as 'dino + rotation'.")
        self.balance = None if balance == "fixed" else BALANCES[balance](list(self.weights))
        if balance == "gradnorm" and not self._last_layers():
            raise MiradaError("GradNorm compares the terms' gradients at the last layers, which are frozen: freeze "
                              "fewer layers, or use --balance uncertainty.")  # fmt: skip

    @property
    def views(self) -> Callable[[Samples], dict[str, dict[str, Tensor]]]:
        """A picklable function: the views of every objective, by name. Equal views are made once per batch."""
        return ViewsOfAll({name: objective.views for name, objective in self.terms()})

    def train(self, mode: bool = True) -> "Learner":
        """Layers that are frozen stay as in evaluation: no drop path, and BatchNorm keeps its statistics."""
        super().train(mode)
        if mode and not all(parameter.requires_grad for parameter in self.backbone.parameters()):
            for module in self.backbone.modules():
                own = list(module.parameters())
                if own and not any(parameter.requires_grad for parameter in own):
                    module.eval()
        return self

    def forward(self, batch: dict[str, dict[str, Tensor]], progress: float) -> dict[str, Tensor]:
        """{"loss": weighted sum, "<objective>/<scalar>": ..., ...}. The terms' own losses keep their gradients."""
        represented, results = self.look(batch, progress)
        return self.total(results | self.compare(represented, progress))

    @property
    def contrasts(self) -> bool:
        """Whether an objective compares the samples of a batch with each other."""
        return any(isinstance(objective, Contrast) for _, objective in self.terms())

    def look(
        self, batch: dict[str, dict[str, Tensor]], progress: float, *, only_to_compare: bool = False
    ) -> tuple[dict[str, dict[str, Tensor]], dict[str, dict[str, Tensor]]]:
        """What the objectives that compare samples need of these, and what the others return, both by name. With
        `only_to_compare` the latter return nothing, but their views go through the backbone all the same, so that its
        random numbers fall on the same samples."""
        terms = self.terms()
        whole = [batch[name][key] for name, one in terms for key in one.encoded]
        shared = SharedForward(self.backbone, whole, [batch[name][key] for name, one in terms for key in one.pooled])
        represented, results = {}, {}
        for name, objective in terms:
            if isinstance(objective, Contrast):
                represented[name] = objective.represent(shared, batch[name])
            elif not only_to_compare:
                results[name] = objective(shared, batch[name], progress)
        return represented, results

    def compare(self, represented: dict[str, dict[str, Tensor]], progress: float) -> dict[str, dict[str, Tensor]]:
        """What the objectives that compare samples return, by name."""
        return {name: objective.compare(represented[name], progress) for name, objective in self.terms()
                if isinstance(objective, Contrast)}  # fmt: skip

    def total(self, parts: dict[str, dict[str, Tensor]]) -> dict[str, Tensor]:
        """What `forward` returns, from what each objective returned."""
        parts = {name: parts[name] for name, _ in self.terms()}
        losses = torch.stack([self.weights[name] * part["loss"].float() for name, part in parts.items()])
        scalars = {f"{name}/{key}": value for name, part in parts.items() for key, value in part.items()}
        total = losses.sum()
        if self.balance is not None:
            total = self.balance(losses, self._last_layers())
            factors = self.balance.factors().detach()
            scalars |= {f"{name}/factor": factor for name, factor in zip(parts, factors, strict=True)}
        return {"loss": total, **scalars}

    def after_step(self, progress: float) -> None:
        """Let every objective follow the new weights."""
        for _, objective in self.terms():
            objective.after_step(self.backbone, progress)
        if self.balance is not None:
            self.balance.after_step()

    def answers(self, images: Tensor) -> dict[str, Tensor]:
        """The answers about `images`, by name, of every objective that has some: see `Objective.answers`."""
        found = {name: objective.answers(self.backbone, images) for name, objective in self.terms()}
        return {name: answers for name, answers in found.items() if answers is not None}

    def evaluated(self) -> Backbone:
        """The backbone that becomes the run's model: a teacher where the method's authors evaluate that, unless a
        classification head or a text tower was trained on the student."""
        teachers = [objective.evaluated() for _, objective in self.terms()]
        if "supervised" in self.objectives or self.towers() is not None:
            return self.backbone
        return next((teacher for teacher in teachers if teacher is not None), self.backbone)

    def towers(self) -> TwoTowers | None:
        """The objective that trains a text tower beside the backbone, if there is one."""
        return next((objective for _, objective in self.terms() if isinstance(objective, TwoTowers)), None)

    def _last_layers(self) -> list[nn.Parameter]:
        """What GradNorm compares gradients at."""
        first = self.backbone.num_layers - 1
        return [parameter for name, parameter in self.backbone.named_parameters()
                if parameter.requires_grad and self.backbone.layer_index(name) >= first]  # fmt: skip

    def terms(self) -> list[tuple[str, Objective]]:
        """The objectives by name, in the order of the sum."""
        return [(name, module) for name, module in self.objectives.items() if isinstance(module, Objective)]


class ViewsOfAll:
    """Holds functions, never modules, so that it pickles in a few bytes."""

    def __init__(self, makers: dict[str, Views]) -> None:
        self.makers = makers

    def __call__(self, samples: Samples) -> dict[str, dict[str, Tensor]]:
        return {name: make(samples) for name, make in self.makers.items()}


class SharedForward:
    """A backbone that has already encoded some images: all of one shape in one forward, each tensor once. Where nobody
    asks for more than the pooled features of a shape, no more is computed."""

    def __init__(self, backbone: Backbone, whole: list[Tensor], pooled: list[Tensor]) -> None:
        self.backbone = backbone
        self.dim, self.stem_dim, self.stride = backbone.dim, backbone.stem_dim, backbone.stride
        self.drops_tokens = backbone.drops_tokens
        self._kept = [*whole, *pooled]  # so that the ids of these tensors stay their own
        self._features: dict[int, Features] = {}
        self._pooled: dict[int, Tensor] = {}
        by_shape: dict[torch.Size, dict[int, Tensor]] = {}
        for image in self._kept:
            by_shape.setdefault(image.shape[1:], {})[id(image)] = image
        shapes = {image.shape[1:] for image in whole}
        for shape, group in by_shape.items():
            first, *others = group.values()
            together = torch.cat([first, *others]) if others else first
            counts = [len(image) for image in group.values()]
            if shape in shapes:
                fields = zip(*(field.split(counts) for field in backbone(together)[:3]), strict=True)
                self._features |= {key: Features(*parts) for key, parts in zip(group, fields, strict=True)}
            else:
                self._pooled |= zip(group, torch.split(backbone.pooled(together), counts), strict=True)

    def __call__(self, images: Tensor, *, probe: Probe | None = None) -> Features:
        if probe is None and id(images) in self._features:
            return self._features[id(images)]
        features: Features = self.backbone(images, probe=probe)
        return features

    def pooled(self, images: Tensor) -> Tensor:
        if id(images) in self._features:
            return self._features[id(images)].pooled
        return self._pooled[id(images)] if id(images) in self._pooled else self.backbone.pooled(images)

    def embed(self, images: Tensor) -> Tensor:
        return self.backbone.embed(images)

    def encode(self, patches: Tensor, *, keep: Tensor | None = None, probe: Probe | None = None) -> Features:
        return self.backbone.encode(patches, keep=keep, probe=probe)


def build_objective(term: Term, backbone: Backbone, facts: dict[str, Any]) -> Objective:
    """One row of the table with the term's options, completed by facts."""
    kind = OBJECTIVES.get(term.name)
    if kind is None:
        nearest = get_close_matches(term.name, OBJECTIVES, 1, cutoff=0.4)
        hint = f"did you mean {nearest[0]!r}?" if nearest else f"there are {', '.join(OBJECTIVES)}."
        raise MiradaError(f"There is no objective {term.name!r}: {hint}")
    options = {name: value for name, value in inspect.signature(kind.__init__).parameters.items()
               if value.kind is inspect.Parameter.KEYWORD_ONLY}  # fmt: skip
    if unknown := [name for name in term.options if name not in options]:
        raise MiradaError(
            f"The objective {term.name!r} has no option {unknown[0]!r}: its options are {', '.join(options)}."
        )
    given = {name: value for name, value in facts.items() if name in options} | term.options
    if missing := [name for name, option in options.items() if option.default is option.empty and name not in given]:
        what = "captions" if "pairs" in missing else "labels"
        raise MiradaError(f"The objective {term.name!r} needs {', '.join(missing)}: do these data have {what}?")
    try:
        return kind(backbone, **given)
    except MiradaError:
        raise
    except (TypeError, ValueError, RuntimeError, ArithmeticError) as error:
        if "allocate" in str(error):  # how PyTorch says out of memory
            raise
        raise MiradaError(f"The options of the objective {term.name!r} do not fit together: {error}.") from error
