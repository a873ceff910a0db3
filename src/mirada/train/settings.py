"""Everything a training run can be told, as one flat table: the recipe file, `config.yaml` and the command's flags."""

import math
import re
from dataclasses import asdict, dataclass, fields, replace
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from mirada.backbones import SIZES
from mirada.errors import MiradaError
from mirada.language import call
from mirada.objectives.balance import BALANCES
from mirada.preprocess import Resize

__all__ = ["CONFIG_FORMAT", "Settings", "parse_duration", "read_recipe", "recipe_names"]

CONFIG_FORMAT = 1


@dataclass(frozen=True)
class Settings:
    """One training run.

    Attributes:
        model: a size name with options, such as `vit-nano/4(pooling='average')`.
        objective: a weighted sum, such as `supervised + 0.5*rotation`.
        image_size: side in pixels of what the model sees.
        early_size: side used for the first `early_share` of the run; smaller images are faster (Touvron et al. 2019,
            arXiv:1906.06423, on why the last part should be at full size). None: `image_size` all along.
        balance: "fixed" for the weights of the sum as written; "uncertainty" or "gradnorm" learn factors of them, see
            `mirada.objectives.balance`.
        freeze: how many of the first layers keep their weights, the stem being one; -1 keeps the whole backbone's.
        lora: rank of the change that matrices learn instead of themselves, in both towers, when starting from a model
            (see `mirada.train.lora`); 0 is off.
        epochs, steps, budget: how long; exactly one is set. `budget` is seconds, reading the data included.
        batch: images per optimiser step, over all processes.
        chunk: images that are computed at a time, for less memory: a part of the batch, with the gradient of the whole
            one (see `mirada.train.parts`). None: all of it.
        optimiser: "adamw" (Loshchilov and Hutter 2019, arXiv:1711.05101) or "muon" (with AdamW for what is no matrix);
            "auto" is Muon for random weights and for a model that Muon trained, AdamW for other models and LoRA.
        learning_rate: peak for AdamW; None gives 0.003 beside Muon, and alone 0.001 * (batch / 512), at most 0.001.
        muon_learning_rate: peak for the matrices that Muon updates.
        momentum: of Muon.
        betas: of AdamW.
        weight_decay: on matrices and kernels only, never on norms, biases, tokens or positions.
        schedule: "cosine" (Loshchilov and Hutter 2017, arXiv:1608.03983) or "linear", both down to 0.
        warmup: share of the run in which the rate grows linearly.
        layer_decay: factor per layer from the last to the first (Clark et al. 2020, arXiv:2003.10555); 1 is off.
        clip: largest norm of all gradients together; None is off.
        ema: decay of the averaged weights that are evaluated and saved; 0 is off.
        precision: "auto" (bfloat16 where it is faster here), "float32" or "bfloat16".
        augment: a name of the augmentation table or a dict of its options.
        canvas: side of the decoded images in memory; None gives 1.25 times `image_size`, or the images' own size.
        resize: how evaluation fits an image into the square: "crop", "squash" or "pad".
        mirror: average the logits over each test image and its mirror image.
        balanced: weigh classes inversely to their number of images.
        init: a model to start from; None is random weights.
        seed: of weights, order and augmentation.
        validate: how many times to measure on the validation split before the end.
        checkpoint_minutes: how often to save what a resumed run needs.
    """

    model: str = "vit-nano/8(stem='deep', pooling='sequence')"
    objective: str = "supervised"
    balance: str = "fixed"
    freeze: int = 0
    lora: int = 0
    image_size: int = 64
    early_size: int | None = None
    early_share: float = 0.5
    epochs: float | None = None
    steps: int | None = None
    budget: float | None = None
    batch: int = 128
    chunk: int | None = None
    optimiser: str = "auto"
    learning_rate: float | None = None
    muon_learning_rate: float = 0.02
    momentum: float = 0.9
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.05
    schedule: str = "cosine"
    warmup: float = 0.05
    layer_decay: float = 1.0
    clip: float | None = 1.0
    ema: float = 0.0
    precision: str = "auto"
    augment: str | dict[str, Any] = "light"
    canvas: int | None = None
    resize: Resize = "crop"
    mirror: bool = False
    balanced: bool = False
    init: str | None = None
    seed: int = 0
    validate: int = 5
    checkpoint_minutes: float = 5.0

    def __post_init__(self) -> None:
        lengths = [name for name in ("epochs", "steps", "budget") if getattr(self, name) is not None]
        if len(lengths) > 1:
            raise MiradaError(f"Give one of epochs, steps and budget, not {' and '.join(lengths)}.")
        for name in ("image_size", "batch", "chunk", "epochs", "steps", "budget", "early_size", "canvas"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise MiradaError(f"The setting {name} must be above 0, and is {value}.")
        if self.seed < 0:
            raise MiradaError(f"The setting seed must be 0 or more, and is {self.seed}.")
        if self.batch % (self.chunk or 1):
            raise MiradaError(f"A batch of {self.batch} does not split into chunks of {self.chunk}.")
        if self.chunk is not None and self.balance != "fixed":
            raise MiradaError(f"The balance {self.balance!r} needs the whole batch at once: leave chunk out.")
        if self.lora < 0 or (self.lora and (self.init is None or self.freeze)):
            raise MiradaError(f"lora {self.lora} changes a model that is kept: use a rank of 1 or more, with init and "
                              "without freeze.")  # fmt: skip
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise MiradaError(f"The setting {name} is {getattr(self, name)!r}: choose {' or '.join(allowed)}.")
        for name in ("learning_rate", "muon_learning_rate", "weight_decay", "layer_decay"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise MiradaError(f"The setting {name} must be 0 or more, and is {value}.")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise MiradaError(f"The setting betas must be two numbers, at least 0 and below 1, and is {self.betas}.")
        for name in ("early_share", "warmup", "ema"):
            if not 0 <= getattr(self, name) < 1:
                raise MiradaError(f"The setting {name} must be at least 0 and below 1, and is {getattr(self, name)}.")

    @property
    def parts(self) -> int:
        """How many parts a batch is computed in."""
        return 1 if self.chunk is None else self.batch // self.chunk

    def to_dict(self) -> dict[str, Any]:
        """Plain values for YAML, without the settings that are None and are so by default."""
        plain = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        default = {field.name: field.default for field in fields(self)}
        return {key: value for key, value in plain.items() if value is not None or default[key] is not None}

    def scaled_to(self, image_size: int) -> "Settings":
        """For a recipe with images of another size: what is in proportion to them keeps its proportion, in whole
        patches."""
        early, canvas, ratio = self.early_size, self.canvas, self.image_size / image_size
        if early is not None and ratio != 1:
            size, _, patch = call(self.model)[0].partition("/")
            usual = SIZES[size].patch if size in SIZES else None
            step = int(patch) if patch.isdecimal() and int(patch) else usual or 1
            early = max(1, math.floor(early * ratio / step + 0.5)) * step
        return replace(self, early_size=early, canvas=canvas and max(1, round(canvas * ratio)))

    def with_changes(self, changes: dict[str, Any], where: str) -> "Settings":
        """These settings with some replaced; a new length (epochs, steps or budget) replaces the old one.

        Raises:
            MiradaError: a name that is no setting, or a value of the wrong kind; says where and names the nearest.
        """
        known = {field.name: field for field in fields(self)}
        for name in changes:
            if name not in known:
                nearest = get_close_matches(name, known, 1)
                hint = f"did you mean {nearest[0]!r}?" if nearest else f"settings are {', '.join(known)}."
                raise MiradaError(f"There is no setting {name!r} in {where}: {hint}")
        changes = {name: _convert(name, value, _kind(known[name]), where) for name, value in changes.items()}
        lengths: dict[str, Any] = {}
        if any(changes.get(name) is not None for name in ("epochs", "steps", "budget")):
            lengths = {"epochs": None, "steps": None, "budget": None}
        return replace(self, **(lengths | changes))


_CHOICES = {
    "balance": ("fixed", *BALANCES),
    "optimiser": ("auto", "adamw", "muon"),
    "schedule": ("cosine", "linear"),
    "precision": ("auto", "float32", "bfloat16"),
    "resize": ("crop", "squash", "pad"),
}


def _kind(field: Any) -> str:
    """The setting's type as text, such as "int | None"."""
    if field.name in _CHOICES:
        return "str"
    return field.type.__name__ if isinstance(field.type, type) else str(field.type)


def _convert(name: str, value: Any, kind: str, where: str) -> Any:
    """A YAML value as the setting's type; durations such as `10m` become seconds."""
    if value is None and "None" in kind:
        return None
    if name == "budget":
        return parse_duration(value)
    if name == "betas" and isinstance(value, (list, tuple)) and all(type(one) in (int, float) for one in value):
        return tuple(float(one) for one in value)
    parts = kind.split(" | ")
    if isinstance(value, (int, float)) and not isinstance(value, bool) and "float" in parts:
        return float(value)
    if type(value).__name__ in [part.partition("[")[0] for part in parts]:
        return value
    if "float" in kind and isinstance(value, str) and re.fullmatch(r"[0-9.]+e-?[0-9]+", value):
        return float(value)  # YAML 1.1 reads 1e-3 as a word
    raise MiradaError(f"The setting {name} in {where} should be {kind.replace(' | ', ' or ')}, not {value!r}.")


def parse_duration(text: str | float) -> float:
    """Seconds from `90`, `90s`, `10m`, `1.5h` or `1h30m`."""
    if isinstance(text, (int, float)) and not isinstance(text, bool):
        return float(text)
    match = re.fullmatch(r"(?:([\d.]+)h)?(?:([\d.]+)m)?(?:([\d.]+)s?)?", str(text).strip())
    try:
        parts = [float(part or 0) for part in match.groups()] if match else [0.0]
    except ValueError:
        parts = [0.0]
    if not sum(parts):
        raise MiradaError(f"Cannot read {text!r} as a duration: write it as 90s, 10m or 1h30m.")
    hours, minutes, seconds = parts
    return 3600 * hours + 60 * minutes + seconds


def recipe_names() -> list[str]:
    """The recipes that come with the package."""
    return sorted(entry.name[:-5] for entry in _recipes().iterdir() if entry.name.endswith(".yaml"))


def read_recipe(name: str) -> dict[str, Any]:
    """The settings of a recipe, by name or by file."""
    if name in recipe_names():
        text, where = (_recipes() / f"{name}.yaml").read_text(encoding="utf-8"), f"recipe {name}"
    elif Path(name).is_file():
        text, where = read_text(Path(name)), name
    else:
        nearest = get_close_matches(name, recipe_names(), 1)
        hint = f"did you mean {nearest[0]!r}?" if nearest else f"there are {', '.join(recipe_names())}, or name a file."
        raise MiradaError(f"There is no recipe {name!r}: {hint}")
    return read_settings(text, where)


def read_text(path: Path) -> str:
    """Raises `MiradaError` for a file that cannot be read, or is no UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise MiradaError(f"Cannot read {path}: it is not UTF-8; save it as UTF-8 text.") from None
    except OSError as error:
        raise MiradaError(f"Cannot read {path} ({error.strerror}): give yourself access to it.") from error


def read_settings(text: str, where: str) -> dict[str, Any]:
    """YAML as a table of settings; refuses a format newer than this version of the package knows."""
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise MiradaError(f"Cannot read {where}: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise MiradaError(f"{where} should be a table of settings, such as `image_size: 32`.")
    version = values.pop("format", CONFIG_FORMAT)
    if not isinstance(version, int) or version > CONFIG_FORMAT:
        raise MiradaError(
            f"{where} was written by a newer Mirada (format {version}, this one reads up to {CONFIG_FORMAT}): "
            "upgrade Mirada."
        )
    return values


def _recipes() -> Any:
    return resources.files("mirada") / "recipes"
