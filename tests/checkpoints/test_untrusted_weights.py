"""No checkpoint is ever executed."""

import argparse
import pickle
import subprocess
from pathlib import Path

import pytest
import torch
from saved import TENSORS, Runs, save
from torch import nn

from mirada.checkpoints.weights import open_weights
from mirada.errors import MiradaError


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_would_run_code(tmp_path: Path, zipped: bool) -> None:
    import os

    mark = tmp_path / "it ran"
    for function, arguments, name in (
        (os.system, (f"touch '{mark}'",), r"(posix|nt)\.system"), (eval, (f"open({str(mark)!r}, 'w')",), "eval"),
        (subprocess.run, (["touch", str(mark)],), r"(subprocess|commands)\.run"),
    ):  # fmt: skip
        document = {"model": {"a": torch.ones(2)}, "extra": Runs(function, *arguments)}
        path = save(tmp_path / "a.pth", document, _use_new_zipfile_serialization=zipped)
        with pytest.raises(
            MiradaError, match=rf"a\.pth is refused: reading it would run code \({name}\); ask .*safetens"
        ):
            open_weights(path)
        assert not mark.exists()
    (tmp_path / "b.bin").write_bytes(pickle.dumps(Runs(os.system, f"touch '{mark}'")))  # a bare one
    with pytest.raises(MiradaError, match=r"b\.bin is refused: .* reading that may run code"):
        open_weights(tmp_path / "b.bin")
    assert not mark.exists()


def test_a_whole_module_is_refused(tmp_path: Path) -> None:
    said = (
        r"is refused: it holds objects that are no tensors \(torch\.nn\.modules\.linear\.Linear\).*`model\.state_dict"
    )
    with pytest.raises(MiradaError, match=said):
        open_weights(save(tmp_path / "a.pth", nn.Linear(2, 2)))


def test_the_harmless_stays_inert(tmp_path: Path) -> None:
    """A Namespace cannot bring anything with it."""
    import os

    mark = tmp_path / "it ran"
    path = save(
        tmp_path / "a.pth", {"model": TENSORS, "args": argparse.Namespace(x=Runs(os.system, f"touch '{mark}'"))}
    )
    with pytest.raises(MiradaError, match="would run code"):
        open_weights(path)
    assert not mark.exists()
