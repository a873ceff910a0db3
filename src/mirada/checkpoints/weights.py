"""The tensors of a checkpoint, read when they are asked for, and never by running anything that the file says.

safetensors files are mapped into memory, PyTorch's own are read with `weights_only=True` (mapped too if they can be)
and TorchScript archives by `torchscript.py`. What a file is its first bytes say, whatever its name. What is no whole,
plain checkpoint of one model (cut short, a pointer, an adapter, quantised, several at once) is refused with the reason.
"""

import builtins
import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import safetensors
import torch
from torch import Tensor

from mirada.checkpoints.files import Files, read_json
from mirada.checkpoints.torchscript import Archive, is_torchscript
from mirada.data.dataset import few, why
from mirada.errors import MiradaError

__all__ = ["Weights", "find_weights", "open_weights", "weights_name"]

CANONICAL = (
    "model.safetensors", "model.safetensors.index.json", "open_clip_model.safetensors", "pytorch_model.bin",
    "pytorch_model.bin.index.json", "open_clip_pytorch_model.bin",
)  # fmt: skip
PICKLES = (".pth", ".pt", ".bin", ".torch", ".ckpt")
NO_MODEL = re.compile(r"(training_args|optimizer|scheduler|scaler|rng_state|random_states|adapter_).*")  # a trainer's

# Dictionaries that training scripts wrap a model's tensors in, the first of which that holds some is opened.
WRAPPERS = (
    "state_dict", "model_state_dict", "model_state", "model", "module", "net", "teacher", "classy_state_dict",
    "base_model", "model_ema", "state_dict_ema",
)  # fmt: skip
PREFIXES = ("module.", "_orig_mod.")  # DataParallel's and torch.compile's, on every name or on none

# What training scripts keep beside the tensors and is harmless; it becomes an object without content all the same.
HARMLESS = (
    "argparse.Namespace", "numpy.dtype", "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar",
    "pathlib.PosixPath", "pathlib.WindowsPath", "pathlib.PurePosixPath", "pathlib._local.PosixPath",
)  # fmt: skip
ATTACKS = {
    "builtins",
    "__builtin__",
    "commands",
    "os",
    "posix",
    "nt",
    "sys",
    "subprocess",
    "runpy",
    "shutil",
    "socket",
    "importlib",
    "pickle",
}

ADAPTER = re.compile(r"(^|[._])lora_(A|B|a|b|up|down|embedding_[AB])([._]|$)")
QUANTISED = re.compile(r"\.(qweight|qzeros|g_idx|absmax|quant_map|SCB|weight_scale|weight_packed|quant_state\..*)$")
FOREIGN = {
    b"\x89HDF": "a Keras file", b"GGUF": "a GGUF file", b"\x1f\x8b": "a compressed archive", b"\x93NUMPY": "one array",
}  # fmt: skip
HEADER = 100_000_000  # bytes, the most that safetensors takes
EIGHT_BITS = {"U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F4"}


class Weights:
    """The tensors of one checkpoint.

    Attributes:
        where: the file, and in brackets the dictionary in it, for messages.
        shapes: of every tensor, by name. A prefix that all names share because of how the model was trained
            (`module.`) is gone.
        nested: the names of the dictionaries at the top of a PyTorch file, that `inner` can open.
    """

    def __init__(
        self, file: str, shapes: Mapping[str, Sequence[int]], fetch: Callable[[str], Tensor],
        *, eight_bits: Iterable[str] = (), document: Any = None, keys: Sequence[str] = (),
    ) -> None:  # fmt: skip
        self.where = _where(file, keys)
        _refuse_strange(self.where, shapes, eight_bits)
        prefix = _common_prefix(shapes)
        self._file = file
        self.shapes = {name.removeprefix(prefix): tuple(shape) for name, shape in shapes.items()}
        self.nested = tuple(key for key, value in document.items() if _dictionary(value)) if document else ()
        self._prefix, self._fetch, self._document = prefix, fetch, document

    def get(self, name: str) -> Tensor:
        """One tensor on the CPU, contiguous; float32 if it is of any floating point type, else as it is.

        It may be a view of the file or of memory that another tensor of the file shares: copy it before writing to it.
        """
        if name not in self.shapes:
            raise KeyError(name)
        try:
            tensor = self._fetch(self._prefix + name)
        except MemoryError as error:
            raise MiradaError(f"{self.where} does not fit into memory (at {name}): close other programs.") from error
        except Exception as error:  # a damaged file: torch, zipfile and safetensors each have their own for it
            raise MiradaError(f"Cannot read {name} of {self.where} ({_said(error)}): is the file whole?") from error
        return (tensor.float() if tensor.is_floating_point() else tensor).contiguous()

    def inner(self, *keys: str) -> "Weights":
        """The tensors of the dictionary found by following `keys` from the top of a PyTorch file. If it holds only
        dictionaries, theirs, with their names before the tensors' own."""
        inner = self._document
        for depth, key in enumerate(keys):
            if not _dictionary(inner) or key not in inner:
                there = few(inner) if _dictionary(inner) else "nothing nested"
                where = _where(self._file, keys[:depth])
                raise MiradaError(f"{where} has no {key!r}, it has {there}: is it the right checkpoint?")
            inner = inner[key]
        return _of_tensors(self._file, keys, _flat(inner), inner)


def open_weights(path: str | os.PathLike[str]) -> Weights:
    """The checkpoint in a file, or the one whose parts an `.index.json` lists.

    Raises:
        MiradaError: for anything that is no whole and plain checkpoint, and for a file whose reading would run code.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise MiradaError(f"{path} is a folder: give a file of weights in it.")
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(512)
    except OSError as error:
        raise MiradaError(f"Cannot read the weights {path} ({why(error)}): check the path.") from error
    if path.name.endswith(".index.json"):
        return _open_shards(path)
    _refuse_foreign(path, start)
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < HEADER:
        return _open_safetensors(path, start, size)
    if path.suffix == ".safetensors" and start.startswith((b"PK\x03\x04", b"\x80")):
        raise MiradaError(f"{path} is no safetensors file, but one of PyTorch's: rename it to .pth if that is meant.")
    if start.startswith(b"PK\x03\x04"):
        return _open_zip(path)
    if start.startswith(b"\x80"):
        return _open_pickle(path, mapped=False)
    return _open_safetensors(path, start, size)


def find_weights(files: Files, first: Sequence[str] = ()) -> Weights:
    """The one checkpoint of a folder or repository, fetched if need be. `first` are names to prefer to the usual ones.

    Raises:
        MiradaError: if there is none, several of which none has a usual name, or only an adapter.
    """
    names = files.names()
    if "adapter_config.json" in names:
        base = (files.json("adapter_config.json") or {}).get("base_model_name_or_path")
        raise MiradaError(_adapter(files.where, str(base) if base else "its base model"))
    name = weights_name(names, files.where, first)
    path = files.path(name)
    if path is None:
        raise MiradaError(f"{files.where} has lost its {name}: fetch it again.")
    if name.endswith(".index.json"):
        for shard in _shards(path):
            if files.path(shard) is None:
                raise MiradaError(_missing_shard(path.name, files.where, shard))
    return open_weights(path)


def weights_name(names: Sequence[str], where: str, first: Sequence[str] = ()) -> str:
    """Which of the files is the checkpoint; an index if it is in parts."""
    for name in (*first, *CANONICAL):
        if name in names:
            return name
    here = [name for name in names if "/" not in name and not NO_MODEL.match(name)]
    for endings in ((".safetensors.index.json",), (".safetensors",), (".bin.index.json",), PICKLES):
        found = [name for name in here if name.endswith(endings)]
        if len(found) > 1:
            raise MiradaError(f"{where} holds {len(found)} checkpoints ({few(found)}): say which with weights=FILE.")
        if found:
            return found[0]
    if any(NO_MODEL.match(name) and name.startswith("adapter_model") for name in names):
        raise MiradaError(_adapter(where, "its base model"))
    other = [name for name in names if name.endswith((".h5", ".msgpack", ".npz", ".onnx", ".ckpt.index", ".gguf"))]
    there = f"only {few(other)}, for other programs" if other else f"its files are {few(names) or 'none'}"
    raise MiradaError(f"{where} holds no PyTorch or safetensors checkpoint ({there}): give one with weights=FILE.")


# --- the kinds of files ------------------------------------------------------------------------------------------


def _open_safetensors(path: Path, start: bytes, size: int) -> Weights:
    try:
        file = safetensors.safe_open(path, framework="pt")
        slices = {name: file.get_slice(name) for name in file.keys()}  # type: ignore[no-untyped-call]  # noqa: SIM118
    except (OSError, safetensors.SafetensorError) as error:
        if start[8:9] == b"{" or path.suffix == ".safetensors":
            raise MiradaError(
                f"{path} is cut short or damaged, {size:,} bytes are there ({_said(error)}): fetch it again."
            ) from error
        raise MiradaError(
            f"{path} is no checkpoint: give a .safetensors file, or a PyTorch file that holds a state dict."
        ) from error
    shapes = {name: tuple(one.get_shape()) for name, one in slices.items()}
    small = [name for name, one in slices.items() if one.get_dtype() in EIGHT_BITS and len(shapes[name]) > 1]
    if not shapes:
        raise MiradaError(f"{path} holds no tensors: is it the right file?")
    return Weights(str(path), shapes, file.get_tensor, eight_bits=small)


def _open_shards(path: Path) -> Weights:
    parts: dict[str, Weights] = {}
    for shard in _shards(path):
        if not (path.parent / shard).is_file():
            raise MiradaError(_missing_shard(path.name, str(path.parent), shard))
        parts[shard] = open_weights(path.parent / shard)
    owners = {name: part for part in parts.values() for name in part.shapes}
    if missing := [name for name in _weight_map(path) if name not in owners and _bare(name) not in owners]:
        raise MiradaError(f"{path} names tensors that none of its files holds ({few(missing)}): fetch them again.")
    shapes = {name: part.shapes[name] for name, part in owners.items()}
    return Weights(str(path), shapes, lambda name: owners[name].get(name))


def _open_zip(path: Path) -> Weights:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            script = is_torchscript(archive)
    except (OSError, zipfile.BadZipFile) as error:
        raise MiradaError(f"{path} is cut short or damaged ({_said(error)}): fetch it again.") from error
    if script:
        return _open_torchscript(path)
    if not any(re.fullmatch(r"([^/]+/)?data\.pkl", name) for name in names):
        kind = "NumPy arrays, as JAX models are kept in" if any(name.endswith(".npy") for name in names) else few(names)
        raise MiradaError(f"{path} is an archive of {kind}, and no PyTorch checkpoint: give its PyTorch conversion.")
    return _open_pickle(path, mapped=True)


def _open_torchscript(path: Path) -> Weights:
    try:
        archive = Archive(path)
    except pickle.UnpicklingError as error:
        raise MiradaError(_refused(path, error)) from error
    except Exception as error:  # damage shows itself in any way
        raise MiradaError(f"Cannot read {path} ({_said(error)}): is the file whole?") from error
    if not archive.shapes:
        raise MiradaError(f"{path} holds no tensors: is it the right file?")
    eight_bits = [name for name, dtype in archive.dtypes.items() if dtype.itemsize == 1 and dtype is not torch.bool]
    return Weights(
        str(path), archive.shapes, archive.get, eight_bits=[n for n in eight_bits if len(archive.shapes[n]) > 1]
    )


def _open_pickle(path: Path, mapped: bool) -> Weights:
    harmless: list[Any] = [(_Nothing, name) for name in HARMLESS]
    try:
        with torch.serialization.safe_globals(harmless), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the pickle's age, of which nobody can do anything
            document = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        raise MiradaError(_refused(path, error)) from error
    except Exception as error:  # damage shows itself in any way
        raise MiradaError(f"{path} is cut short or damaged ({_said(error)}): fetch it again.") from error
    keys, inner = _unwrapped(document)
    return _of_tensors(str(path), keys, _flat(inner), document)


class _Nothing:
    """Stands in for an object that is no tensor, and ignores all that is said about it."""

    def __new__(cls, *_: Any, **__: Any) -> "_Nothing":
        return object.__new__(cls)

    def __setstate__(self, state: Any) -> None: ...


# --- dictionaries in dictionaries --------------------------------------------------------------------------------


def _unwrapped(document: Any) -> tuple[list[str], Any]:
    """Where the model is in what was loaded, and what is there."""
    inner, keys = document, list[str]()
    while _dictionary(inner) and not _has_tensors(inner):
        key = next((key for key in WRAPPERS if _dictionary(inner.get(key)) and _flat(inner[key])), None)
        if key is None:
            break
        inner = inner[key]
        keys.append(key)
    return keys, inner


def _of_tensors(file: str, keys: Sequence[str], tensors: dict[str, Tensor], document: Any) -> Weights:
    where = _where(file, keys)
    if not tensors:
        what = f"its keys are {few(document)}" if _dictionary(document) else f"it is a {type(document).__name__}"
        raise MiradaError(f"{where} holds no dictionary of a model's tensors ({what}): is it the right file?")
    for name, tensor in tensors.items():
        if tensor.layout is not torch.strided or tensor.device.type != "cpu":
            raise MiradaError(
                f"{where} holds {name} without its plain values ({tensor.layout}, {tensor.device}): save it whole."
            )
    small = [name for name, tensor in tensors.items() if _eight_bits(tensor)]
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    return Weights(file, shapes, lambda name: tensors[name].detach(), eight_bits=small, document=document, keys=keys)


def _where(file: str, keys: Sequence[str]) -> str:
    return f"{file} [{'.'.join(keys)}]" if keys else file


def _dictionary(value: Any) -> bool:
    return isinstance(value, dict)


def _has_tensors(document: dict[Any, Any]) -> bool:
    """Whether a dictionary is a model's itself; a lone number such as the step of the training is not."""
    return any(isinstance(value, Tensor) and value.ndim > 0 for value in document.values())


def _flat(document: Any) -> dict[str, Tensor]:
    """A dictionary's tensors, or, where it holds none itself, those of the dictionaries in it under joined names."""
    if not isinstance(document, dict):
        return {}
    if _has_tensors(document):
        return {str(key): value for key, value in document.items() if isinstance(value, Tensor)}
    return {
        f"{key}.{name}": tensor
        for key, value in document.items()
        if isinstance(key, str)
        for name, tensor in _flat(value).items()
    }


def _common_prefix(names: Iterable[str]) -> str:
    names, prefix = list(names), ""
    while more := next((p for p in PREFIXES if all(name.startswith(prefix + p) for name in names)), ""):
        prefix += more
    return prefix


def _bare(name: str) -> str:
    return re.sub(rf"^({'|'.join(map(re.escape, PREFIXES))})+", "", name)


# --- what is refused ---------------------------------------------------------------------------------------------


def _refuse_foreign(path: Path, start: bytes) -> None:
    """Raise for what is recognisably something else than a checkpoint."""
    if not start:
        raise MiradaError(f"{path} is empty: fetch it again.")
    if start.startswith(b"version https://git-lfs"):
        raise MiradaError(
            f"{path} is a git-lfs pointer, not the weights: run `git lfs pull` in its folder, or download the file."
        )
    if start.lstrip()[:1] == b"<":
        raise MiradaError(f"{path} is a web page, not the weights: download the file itself; it may need a login.")
    kind = next((kind for magic, kind in FOREIGN.items() if start.startswith(magic)), None)
    if kind or start[257:262] == b"ustar":
        kind = kind or "a tar archive, as PyTorch wrote them before 2017"
        raise MiradaError(f"{path} is {kind}: give a .safetensors file, or a PyTorch file that holds a state dict.")


def _refuse_strange(where: str, names: Iterable[str], eight_bits: Iterable[str]) -> None:
    """Raise for tensors that are no model's weights as they stand."""
    names = list(names)
    if any(ADAPTER.search(name) for name in names):
        raise MiradaError(_adapter(where, "its base model"))
    if quantised := [*(name for name in names if QUANTISED.search(name)), *eight_bits]:
        raise MiradaError(
            f"{where} is quantised ({few(quantised, 2)}), and its numbers mean nothing without the library that wrote "
            "it: give the model in float16, bfloat16 or float32."
        )


def _eight_bits(tensor: Tensor) -> bool:
    return tensor.is_quantized or (tensor.dtype.itemsize == 1 and tensor.dtype is not torch.bool and tensor.ndim > 1)


def _adapter(where: str, base: str) -> str:
    return (
        f"{where} is an adapter (LoRA) for {base}, not a model: merge the two first (in PEFT: "
        "`model.merge_and_unload().save_pretrained(FOLDER)`) and load the result."
    )


def _refused(path: Path, error: Exception) -> str:
    match = re.search(r"GLOBAL ([\w.]+)", str(error)) or re.search(r"of type <class '([\w.]+)'>", str(error))
    name = match[1] if match else ""
    if name.partition(".")[0] in ATTACKS or hasattr(builtins, name):
        return f"{path} is refused: reading it would run code ({name}); ask its author for a .safetensors file."
    what = f"it holds objects that are no tensors ({name})" if name else "it is damaged or holds more than tensors"
    return (
        f"{path} is refused: {what}, and reading that may run code; ask its "
        "author for a .safetensors file, or for one with nothing but `model.state_dict()` in it."
    )


def _missing_shard(index: str, where: str, shard: str) -> str:
    return f"{index} in {where} needs {shard}, which is not there: fetch it too."


def _weight_map(path: Path) -> dict[str, str]:
    index = (read_json(path) or {}).get("weight_map")
    if not isinstance(index, dict) or not index or not all(isinstance(file, str) for file in index.values()):
        raise MiradaError(f"{path} has no weight_map from tensors to files: is it the right file?")
    return index


def _shards(path: Path) -> list[str]:
    """The files an index names, which are beside it."""
    files = sorted(set(_weight_map(path).values()))
    if strange := [file for file in files if PurePosixPath(file).name != file or file.endswith(".index.json")]:
        raise MiradaError(f"{path} names files outside of its folder ({few(strange)}): do not use it.")
    return files


def _said(error: Exception) -> str:
    """An exception's own first line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")[:200]
