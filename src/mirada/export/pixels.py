"""A `Preprocess` in the words of other libraries, and how far they are from doing the same."""

from dataclasses import fields, replace
from math import floor
from typing import Any

from mirada.checkpoints.pixels import BLACK, HF_RESAMPLE
from mirada.errors import MiradaError
from mirada.preprocess import Preprocess

__all__ = ["differences", "hf_processor", "timm_cfg"]

SMOOTH = ("nearest", "bilinear")  # interpolations on which the libraries agree to a grey level
OVERSHOOTING = "up to 11 grey levels beside edges"


def timm_cfg(pixels: Preprocess) -> dict[str, Any]:
    """The pixels' part of timm's `pretrained_cfg`."""
    modes = {"crop": "center", "squash": "squash", "pad": "border"}
    if pixels.resize not in modes:
        raise MiradaError("timm always resizes, and this model's pictures stay as large as they are (resize='none').")
    height, width = pixels.size
    box = pixels.box or pixels.size
    exact = height / box[0]
    fractions = [
        round(exact, 2),
        round(exact, 3),
        exact,
        width / box[1],
        height / (box[0] + 0.5),
        width / (box[1] + 0.5),
    ]
    fits = [part for part in fractions if part and (floor(height / part), floor(width / part)) == box]
    if not fits:
        raise MiradaError(
            f"timm resizes to the image size over one fraction, and this model's to {box[0]}x{box[1]} for "
            f"{height}x{width}, which is none: export it as hf."
        )
    return {
        "input_size": [3, height, width], "interpolation": pixels.interpolation, "crop_pct": fits[0],
        "crop_mode": modes[pixels.resize], "mean": list(pixels.mean), "std": list(pixels.std),
    }  # fmt: skip


def hf_processor(pixels: Preprocess) -> dict[str, Any]:
    """What transformers' `preprocessor_config.json` says."""
    sides = {"height": pixels.size[0], "width": pixels.size[1]}
    box = pixels.box or pixels.size
    values: dict[str, Any] = {
        "do_convert_rgb": True, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True,
        "image_mean": list(pixels.mean), "image_std": list(pixels.std), "do_resize": pixels.resize != "none",
        "resample": HF_RESAMPLE.index(pixels.interpolation),
    }  # fmt: skip
    if pixels.resize == "pad" or (pixels.resize == "crop" and box[0] != box[1]):
        raise MiradaError(
            f"transformers has no image processor that does resize={pixels.resize!r} for {box[0]}x{box[1]} pixels: "
            "export it as timm."
        )
    if pixels.resize == "crop":
        more = {"size": {"shortest_edge": box[0]}, "do_center_crop": True, "crop_size": sides}
        return {"image_processor_type": "CLIPImageProcessor", **values, **more}
    if pixels.resize == "squash" and box == pixels.size:
        return {"image_processor_type": "ViTImageProcessor", **values, "size": sides}
    resized = {"height": box[0], "width": box[1]}
    return {"image_processor_type": "DeiTImageProcessor", **values, "size": resized, "do_center_crop": True,
            "crop_size": sides}  # fmt: skip


def differences(ours: Preprocess, theirs: Preprocess, library: str) -> list[str]:
    """What a person should know of where the library's pixels, `theirs`, part from the model's own by more than a grey
    level. Raises `MiradaError` where they have little to do with each other."""
    ours, theirs = _settled(ours), _settled(theirs)
    notes = []
    if ours.resampler != theirs.resampler and not {ours.interpolation, theirs.interpolation} & set(SMOOTH):
        other = {"pillow": "Pillow", "torch": "PyTorch", "torch-float": "PyTorch"}
        note = (
            f"{library} resizes with {other[theirs.resampler]}, this model with {other[ours.resampler]}: pixels differ "
            f"by {OVERSHOOTING}"
        )
        pillow = "; AutoImageProcessor.from_pretrained(DIR, backend='pil') makes them equal"
        notes.append(note + (pillow if library == "transformers" and ours.resampler == "pillow" else ""))
    if ours.halves != theirs.halves:
        notes.append(f"{library} cuts a pixel aside where an odd number of pixels is left over")
    free = {"resampler", "halves"}
    unlike = {field.name for field in fields(ours) if getattr(ours, field.name) != getattr(theirs, field.name)} - free
    if unlike:
        name = sorted(unlike)[0]
        raise MiradaError(
            f"{library} cannot prepare pixels as this model does, with {name}={getattr(ours, name)!r}: it would take "
            f"{getattr(theirs, name)!r}."
        )
    return notes


def _settled(pixels: Preprocess) -> Preprocess:
    """The same pixels with what makes no difference said in one way."""
    box = pixels.box or pixels.size
    leftover = [there - wanted for there, wanted in zip(box, pixels.size, strict=True)]
    filled = pixels.resize in ("pad", "none") or min(leftover) < 0
    cut = pixels.resize in ("crop", "none") or any(part % 2 for part in leftover)
    return replace(
        pixels, box=box, fill=pixels.fill if filled else BLACK, halves=pixels.halves if cut else "even",
        mean=tuple(map(float, pixels.mean)), std=tuple(map(float, pixels.std)),
    )  # fmt: skip
