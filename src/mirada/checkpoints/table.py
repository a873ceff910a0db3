"""The engine of key tables: tensors of one layout to tensors of another, every one of them, in both directions.

A table is data, an ordered list of rows `(names there, names here)` or `(names there, names here, how)`:

    ("norm.{}", "backbone.norm.{}")                                  the same tensor under another name
    (("q.weight", "k.weight", "v.weight"), "qkv.weight", JOIN)       several tensors that are one here
    ("pos_embed", ("class_position", "position"), join(1))           one tensor that is several here
    ("mask_token", None)                                             dropped, by name

`{}` stands for one part of a name between dots. Each tensor of the model takes the first row that names it and whose
sources are all there. What is missing, left over or misshapen is an error that lists the names; nothing is guessed.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mirada.errors import MiradaError

__all__ = ["JOIN", "SAME", "TRANSPOSE", "How", "Row", "Table", "join", "read", "shape_added", "then", "write"]

Names = str | tuple[str, ...]
Shapes = Mapping[str, Sequence[int]]
SHOWN = 6  # names of each kind in an error


class How(NamedTuple):
    """The way from the tensors of a row's left side to those of its right side, and back."""

    read: Callable[[list[Tensor], list[torch.Size]], list[Tensor]]  # tensors there, shapes here -> tensors here
    write: Callable[[list[Tensor], int], list[Tensor]]  # tensors here, how many there -> tensors there


Row = tuple[Names, Names | None] | tuple[Names, Names | None, How]
Table = Sequence[Row]

SAME = How(lambda tensors, _: tensors, lambda tensors, _: tensors)
TRANSPOSE = How(lambda tensors, _: [t.mT.contiguous() for t in tensors], lambda tensors, _: [t.mT for t in tensors])


def join(dim: int = 0, sizes: tuple[int, ...] | None = None) -> How:
    """Several tensors there are one here, side by side along `dim`, or one there is several here. `sizes` along `dim`
    of those there are needed to take them apart again unless they are equal; -1 stands for the rest."""

    def read(tensors: list[Tensor], shapes: list[torch.Size]) -> list[Tensor]:
        if len(shapes) == 1:
            return [torch.cat(tensors, dim)]
        return [part.contiguous() for part in torch.split(tensors[0], [shape[dim] for shape in shapes], dim)]

    def write(tensors: list[Tensor], count: int) -> list[Tensor]:
        if len(tensors) > 1:
            return [torch.cat(tensors, dim)]
        if sizes is None:
            return list(tensors[0].chunk(count, dim))
        rest = tensors[0].shape[dim] - sum(size for size in sizes if size >= 0)
        return list(torch.split(tensors[0], [rest if size < 0 else size for size in sizes], dim))

    return How(read, write)


JOIN = join()


def shape_added(*dims: int) -> How:
    """The tensor here has, at `dims` (counted in its own shape), dimensions of size 1 that the one there lacks."""

    def read(tensors: list[Tensor], _: list[torch.Size]) -> list[Tensor]:
        for dim in sorted(dims):
            tensors = [tensor.unsqueeze(dim) for tensor in tensors]
        return tensors

    def write(tensors: list[Tensor], _: int) -> list[Tensor]:
        for dim in sorted(dims, reverse=True):
            tensors = [tensor.squeeze(dim) for tensor in tensors]
        return tensors

    return How(read, write)


def then(first: How, second: How) -> How:
    """One way after the other; `first` is nearer to the file, and has as many tensors on both of its sides."""
    return How(
        lambda tensors, shapes: second.read(first.read(tensors, shapes), shapes),
        lambda tensors, count: first.write(second.write(tensors, count), count),
    )


def read(
    table: Table, there: Shapes, get: Callable[[str], Tensor], here: Mapping[str, torch.Size], what: str
) -> dict[str, Tensor]:
    """The tensors `here` asks for, by name, from those that are `there`, each fetched once with `get`.

    Raises:
        MiradaError: a tensor of the model without sources, one in the file that nobody asked for, or a shape that does
            not fit. `what` says in the error which file does not fit which model.
    """
    plan: list[tuple[tuple[str, ...], tuple[str, ...], How]] = []
    filled: set[str] = set()
    lacking: dict[str, list[str]] = {}  # tensor of the model -> sources that its first row misses
    for sources, targets, how in _instances(table, here):
        if filled.intersection(targets):
            continue
        if absent := [name for name in sources if name not in there]:
            lacking.setdefault(targets[0], absent)
            continue
        filled.update(targets)
        plan.append((sources, targets, how))
    used = {name for sources, _, _ in plan for name in sources}
    dropped = [_pattern(name) for row in table if row[1] is None for name in _tuple(row[0])]
    unknown = [name for name in there if name not in used and not any(p.fullmatch(name) for p in dropped)]
    missing = [", ".join(lacking.get(name, [name])) for name in here if name not in filled]
    result: dict[str, Tensor] = {}
    misshapen: list[str] = []
    for sources, targets, how in plan:
        wanted = [here[name] for name in targets]
        try:
            made = how.read([get(name) for name in sources], wanted)
        except (RuntimeError, IndexError):  # torch's word for shapes that do not fit together
            made = []
        if [tensor.shape for tensor in made] != wanted:
            shapes = " and ".join(str(list(there[name])) for name in sources)
            misshapen.append(f"{sources[0]} {shapes} for {' and '.join(str(list(shape)) for shape in wanted)}")
            continue
        result.update(zip(targets, made, strict=True))
    problems = [
        f"{kind} {', '.join(names[:SHOWN])}{f' and {len(names) - SHOWN} more' if len(names) > SHOWN else ''}"
        for kind, names in (("missing", missing), ("unknown", unknown), ("of another shape", misshapen))
        if names
    ]
    if problems:
        raise MiradaError(f"{what}: {'; '.join(problems)}.")
    return result


def write(table: Table, tensors: Mapping[str, Tensor], what: str) -> dict[str, Tensor]:
    """The way back: a model's tensors as the layout of the table names and shapes them.

    Raises `MiradaError` for a tensor that the layout has no place for; `what` says which model and which layout.
    """
    result: dict[str, Tensor] = {}
    done: set[str] = set()
    for sources, targets, how in _instances(table, tensors):
        if done.intersection(targets):
            continue
        done.update(targets)
        parts = how.write([tensors[name] for name in targets], len(sources))
        result.update(zip(sources, (part.contiguous() for part in parts), strict=True))
    if left := [name for name in tensors if name not in done]:
        raise MiradaError(f"{what}: there is no place for {', '.join(left[:SHOWN])}{' ...' if left[SHOWN:] else ''}.")
    return result


def _instances(table: Table, here: Iterable[str]) -> Iterator[tuple[tuple[str, ...], tuple[str, ...], How]]:
    """Each row once for each set of names here that it stands for; rows in order."""
    names = dict.fromkeys(here)
    for row in table:
        if row[1] is None:
            continue
        sources, targets = _tuple(row[0]), _tuple(row[1])
        how = row[2] if len(row) == 3 else SAME
        pattern = _pattern(targets[0])
        for name in names:
            if match := pattern.fullmatch(name):
                found = tuple(target.format(*match.groups()) for target in targets)
                if all(target in names for target in found):
                    yield tuple(source.format(*match.groups()) for source in sources), found, how


def _pattern(name: str) -> re.Pattern[str]:
    return re.compile("([^.]+)".join(re.escape(part) for part in name.split("{}")))


def _tuple(names: Names) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else names
