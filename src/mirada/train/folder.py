"""A run's folder: config.yaml, metrics.jsonl, checkpoints/, model/, report.html."""

import json
import os
import platform
import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from math import isfinite
from pathlib import Path
from typing import Any

import torch
import yaml

from mirada.data.dataset import own_name
from mirada.errors import MiradaError
from mirada.train.settings import CONFIG_FORMAT, Settings, read_settings, read_text

__all__ = ["RunFolder", "machine"]


class RunFolder:
    """Paths and small files of one run."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.config = self.path / "config.yaml"
        self.metrics = self.path / "metrics.jsonl"
        self.checkpoint = self.path / "checkpoints" / "last.safetensors"
        self.model = self.path / "model"
        self.report = self.path / "report.html"

    @classmethod
    def unused(cls, data: str) -> "RunFolder":
        """`runs/NAME`, or `runs/NAME-2` and so on, for data of that name."""
        name = re.split(r"[.{]", own_name(data))[0].rstrip("-_ ") or "data"  # of name-{000..127}.tar, too
        number, path = 1, Path("runs") / name
        while path.exists():
            number += 1
            path = Path("runs") / f"{name}-{number}"
        return cls(path)

    def require_unused(self) -> None:
        """Raise `MiradaError` when there is a run in it already, or it could not be made. Nothing is made yet."""
        if self.config.exists():
            raise MiradaError(f"There is a run in {self.path} already: add --resume to go on, or choose another --out.")
        there = self.path.absolute()
        while not os.path.lexists(there):
            there = there.parent
        if not there.is_dir() or not os.access(there, os.W_OK):
            reason = "you may not write to it" if there.is_dir() else "it is not a folder"
            raise MiradaError(f"Cannot make the run's folder {self.path} in {there} ({reason}): choose another --out.")

    def create(self, settings: Settings, data: str, command: list[str]) -> None:
        """Make the folder with everything needed to repeat the run. Raises `MiradaError` as `require_unused` does,
        also where another process is quicker."""
        self.require_unused()
        facts = {
            "format": CONFIG_FORMAT, "data": os.path.abspath(data), "command": shlex.join(command),
            "machine": machine(), **settings.to_dict(),
        }  # fmt: skip
        if settings.init is not None and os.path.isdir(settings.init):  # one may go on from elsewhere
            facts["init"] = os.path.abspath(settings.init)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            text = yaml.safe_dump(facts, sort_keys=False, allow_unicode=True, width=10_000)
            self.metrics.write_text("", encoding="utf-8")
            file = open(self.config, "x", encoding="utf-8")  # noqa: SIM115  # closed before it is taken away
            try:
                with file:
                    file.write(text)
            except OSError:
                self.config.unlink()  # which would make it a run
                raise
        except FileExistsError as error:
            raise MiradaError(f"Another process made a run in {self.path} just now: choose another --out.") from error
        except OSError as error:
            raise MiradaError(f"Cannot write to {self.path} ({error.strerror}): choose another --out.") from error

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes from training in the folder meanwhile. Raises `MiradaError` where one does so already.
        A process that is killed lets go. Windows, and some file systems, have no such locks."""
        self.checkpoint.parent.mkdir(exist_ok=True)
        with open(self.checkpoint.with_name(".lock"), "a", encoding="utf-8") as file:
            if sys.platform != "win32":
                import fcntl

                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise MiradaError(f"A run is going on in {self.path}: stop it, or wait until it ends.") from None
                except OSError:  # no locks here
                    pass
            for folder in (self.checkpoint.parent, self.model):  # what a process left that was killed while it saved
                for part in folder.glob(".*.part"):
                    part.unlink(missing_ok=True)
            yield

    def read_config(self) -> tuple[Settings, str]:
        """The settings and the data of the run that is in the folder."""
        if not self.config.is_file():
            raise MiradaError(f"There is no run to resume in {self.path}: leave --resume out to start one.")
        values = read_settings(read_text(self.config), str(self.config))
        data = values.pop("data", "")
        for key in ("command", "machine"):
            values.pop(key, None)
        return Settings().with_changes(values, str(self.config)), data

    def append(self, row: dict[str, Any]) -> None:
        """One line of metrics; null for what is no finite number, which JSON has no word for."""
        with open(self.metrics, "a", encoding="utf-8") as file:
            file.write(json.dumps({key: _short(value) for key, value in row.items()}) + "\n")

    def rows(self) -> list[dict[str, Any]]:
        """All whole lines of metrics; a line cut short by a kill is left out."""
        rows = []
        for line in self.metrics.read_text(encoding="utf-8").splitlines():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                break
        return rows

    def forget_after(self, step: int) -> None:
        """Drop the metrics of steps that will be taken again."""
        kept = [json.dumps(row) + "\n" for row in self.rows() if row["step"] <= step]
        temporary = self.metrics.with_suffix(".part")
        temporary.write_text("".join(kept), encoding="utf-8")
        os.replace(temporary, self.metrics)


def _short(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return float(f"{value:.6g}") if isfinite(value) else None


def processor() -> str:
    """The processor's name where the system tells it, such as "AMD EPYC", else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(": ")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names and names[0] else platform.processor() or platform.machine()


def machine() -> str:
    """What the run's times depend on, in one line. Its instructions are told, since clouds call all their processors by
    one name, and training takes nearly twice as long where there is nothing beyond AVX2."""
    count = torch.get_num_threads()
    instructions = torch.backends.cpu.get_cpu_capability()
    return (
        f"{processor()} ({instructions}), {count} thread{'s' * (count != 1)}, {platform.system()}, "
        f"Python {sys.version.split()[0]}, PyTorch {torch.__version__}"
    )
