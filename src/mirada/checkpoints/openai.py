"""OpenAI's CLIP (Radford et al. 2021, arXiv:2103.00020; github.com/openai/CLIP), its vision transformers.

OpenAI's own files are TorchScript archives in half precision, with open_clip's names. On the hub the same weights are
in open_clip's layout.
"""

from difflib import get_close_matches

from mirada.checkpoints import open_clip
from mirada.checkpoints.files import Files
from mirada.checkpoints.open_clip_names import model_config
from mirada.checkpoints.pixels import openai
from mirada.checkpoints.plan import Plan
from mirada.checkpoints.table import Shapes
from mirada.errors import MiradaError
from mirada.tokenizer import TokenizerDesign

__all__ = ["NAMES", "plan", "repository"]

NAMES = {  # as its authors spell them -> as open_clip does
    "ViT-B/32": "ViT-B-32", "ViT-B/16": "ViT-B-16", "ViT-L/14": "ViT-L-14", "ViT-L/14@336px": "ViT-L-14-336",
}  # fmt: skip


def repository(name: str) -> str:
    return open_clip.repository(f"{_known(name)}/openai")


def plan(name: str, files: Files | None, shapes: Shapes) -> Plan:
    """The plan for OpenAI's own file, or for a repository of open_clip's layout."""
    architecture = _known(name)
    if files is not None:
        return open_clip.plan(f"{architecture}/openai", files, shapes)
    model = model_config(f"{architecture}-quickgelu")
    design = open_clip.two_tower_design(model, openai(model["vision_cfg"]["image_size"]), TokenizerDesign())
    return Plan(design, open_clip.tensor_rows(model, shapes))


def _known(name: str) -> str:
    if name.startswith("RN"):
        raise MiradaError(
            f"OpenAI's {name} sees with a ResNet of its own kind, which Mirada does not have: choose one of "
            f"{', '.join(NAMES)}."
        )
    if name not in NAMES:
        nearest = get_close_matches(name, NAMES, 1)
        hint = f"did you mean {nearest[0]!r}?" if nearest else f"choose one of {', '.join(NAMES)}."
        raise MiradaError(f"OpenAI has no CLIP {name!r}: {hint}")
    return NAMES[name]
