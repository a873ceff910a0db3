"""The tensors of a TorchScript archive (OpenAI published CLIP as such), without running it.

Such a file is a zip: `data.pkl` pickles the tree of modules, `data/0`, `data/1`, ... are the storages, and `code/`
holds the program. `torch.jit.load` would compile the program and run what modules have to say to being loaded. Here a
pickle can build nothing but the inert records below, whatever it asks for, and the program is only looked at as text:
it says which tensors of a module are its parameters and buffers.
"""

import ast
import pickle
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = ["Archive", "is_torchscript"]

STORAGES = {
    "FloatStorage": torch.float32, "HalfStorage": torch.float16, "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64, "LongStorage": torch.int64, "IntStorage": torch.int32, "ShortStorage": torch.int16,
    "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool,
}  # fmt: skip
LISTS = {"build_boollist", "build_doublelist", "build_intlist", "build_tensorlist", "build_tensor_from_id",
         "restore_type_tag"}  # fmt: skip


MOST_PROGRAM = 1 << 26  # bytes of a class's text
MOST_VISITS = 100_000  # modules and what they hold


class _Stored(NamedTuple):
    """A tensor that is still in its file."""

    dtype: torch.dtype
    key: str
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class Archive:
    """The parameters and buffers of the archive's module, as `state_dict()` would name them.

    Whatever is wrong with the file raises some exception: `pickle.UnpicklingError` for a pickle that asks for anything
    but tensors and modules.
    """

    def __init__(self, path: Path) -> None:
        self.zip, self.size = zipfile.ZipFile(path), path.stat().st_size
        self.root = _root(self.zip)
        if self.root + "byteorder" in self.zip.namelist() and self._read("byteorder") == b"big":
            raise ValueError("it was written on a big-endian machine")
        with self.zip.open(self._small("data.pkl")) as file:
            tree, states = _unpickle(file)
        self.visits = 0
        self.states = states  # id of an inert object -> (object, qualified name of its class, its attributes)
        self.stored: dict[str, _Stored] = dict(self._walk(tree, "", ()))
        self.shapes = {name: stored.shape for name, stored in self.stored.items()}
        self.dtypes = {name: stored.dtype for name, stored in self.stored.items()}

    def get(self, name: str) -> Tensor:
        """A tensor of its own memory."""
        stored = self.stored[name]
        bytes_of_it = bytearray(self._read(f"data/{stored.key}"))
        flat = torch.frombuffer(bytes_of_it, dtype=stored.dtype) if bytes_of_it else torch.empty(0, dtype=stored.dtype)
        last = stored.offset + sum((size - 1) * step for size, step in zip(stored.shape, stored.stride, strict=True))
        negative = min((stored.offset, *stored.shape, *stored.stride)) < 0
        if negative or (0 not in stored.shape and last >= len(flat)):
            raise ValueError(f"the tensor {name} reaches beyond its storage")
        return flat.as_strided(stored.shape, stored.stride, stored.offset)

    def _read(self, name: str) -> bytes:
        return self.zip.read(self._small(name))

    def _small(self, name: str) -> zipfile.ZipInfo:
        """An entry that takes no more memory than it should: PyTorch compresses the program only."""
        entry = self.zip.getinfo(self.root + name)
        if entry.file_size > (MOST_PROGRAM if name.startswith("code/") else self.size):
            raise ValueError(f"{name} takes {entry.file_size:,} bytes, and the whole file {self.size:,}")
        return entry

    def _walk(self, node: Any, prefix: str, above: tuple[int, ...]) -> Iterator[tuple[str, _Stored]]:
        """The tensors of a module and of those in it; a module that holds itself ends there."""
        self.visits += 1
        if self.visits > MOST_VISITS:
            raise ValueError("its modules hold each other too often")
        if id(node) not in self.states or id(node) in above:
            return
        _, kind, attributes = self.states[id(node)]
        kept = self._kept(kind)
        for name, value in attributes.items():
            if isinstance(value, _Stored):
                if kept is None or name in kept:
                    yield prefix + name, value
            else:
                yield from self._walk(value, f"{prefix}{name}.", (*above, id(node)))

    def _kept(self, kind: str) -> set[str] | None:
        """The names of the class's parameters and buffers. None: its program, of an old torch, does not say."""
        module, _, name = kind.rpartition(".")
        try:
            source = self._read(f"code/{module.replace('.', '/')}.py").decode()
        except KeyError:
            return None
        body = re.search(rf"^class {re.escape(name)}\(Module\):\n((?:  .*\n|\n)*)", source, re.MULTILINE)
        lists = dict(re.findall(r"^  __(parameters|buffers)__ = (\[.*\])$", body[1], re.MULTILINE)) if body else {}
        return {str(entry) for text in lists.values() for entry in ast.literal_eval(text)} if len(lists) == 2 else None


def is_torchscript(archive: zipfile.ZipFile) -> bool:
    names = archive.namelist()
    return any(name.endswith("/constants.pkl") for name in names) and any("/code/" in name for name in names)


def _root(archive: zipfile.ZipFile) -> str:
    """What all names in the archive begin with, such as `ViT-B-32/`."""
    return next(name for name in archive.namelist() if re.fullmatch(r"[^/]+/data\.pkl", name)).removesuffix("data.pkl")


def _unpickle(file: Any) -> tuple[Any, dict[int, tuple[Any, str, dict[str, Any]]]]:
    """The tree of inert objects, and what is known of each.

    The names below are the only ones that the pickle can call, and they only ever make tuples and inert objects.
    """
    states: dict[int, tuple[Any, str, dict[str, Any]]] = {}

    def inert(kind: str) -> type:
        def build(self: Any, state: Any) -> None:
            states[id(self)] = (self, kind, state if isinstance(state, dict) else {})

        return type("Inert", (), {"__slots__": (), "__setstate__": build})

    def rebuild(storage: Any, offset: int, shape: Any, stride: Any, *_: Any) -> _Stored:
        dtype, key = storage
        return _Stored(dtype, key, int(offset), tuple(map(int, shape)), tuple(map(int, stride)))

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            if module == "__torch__" or module.startswith("__torch__."):
                return inert(f"{module}.{name}")
            if module == "torch" and name in STORAGES:
                return STORAGES[name]
            if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
                return rebuild
            if module == "torch.jit._pickle" and name in LISTS:
                return lambda value=None, *_: value
            if (module, name) == ("collections", "OrderedDict"):
                return lambda *_: {}
            raise pickle.UnpicklingError(f"GLOBAL {module}.{name}")

        def persistent_load(self, pid: Any) -> Any:
            match pid:
                case ("storage", torch.dtype() as dtype, str() as key, *_):
                    return dtype, key
            raise pickle.UnpicklingError("a reference that is no storage")

    return Unpickler(file).load(), states
