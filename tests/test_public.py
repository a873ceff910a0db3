"""The public names are exactly these, and neither importing the package nor asking for help pays for PyTorch."""

import json
import subprocess
import sys
from importlib.metadata import entry_points, version

import pytest

import mirada

PROBE = """
import json, sys
{what}
print(json.dumps(sorted(set(sys.modules) & {{"torch", "numpy", "PIL", "pyarrow", "matplotlib", "rich.progress"}})))
"""


def loaded_after(what: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", PROBE.format(what=what)], capture_output=True, text=True, check=True)
    names: list[str] = json.loads(done.stdout.splitlines()[-1])
    return names


def test_exported_names() -> None:
    assert mirada.__all__ == ["Index", "MiradaError", "Model", "__version__", "load"]
    assert dir(mirada) == mirada.__all__
    for name in mirada.__all__:
        assert getattr(mirada, name) is not None
    assert mirada.Index.__module__ == "mirada.search.index"
    assert mirada.Model.__module__ == "mirada.model"
    assert mirada.load.__module__ == "mirada.loading"
    assert issubclass(mirada.MiradaError, ValueError)
    with pytest.raises(AttributeError, match="no attribute 'laod'"):
        _ = mirada.laod


def test_the_version_is_the_packages() -> None:
    assert mirada.__version__ == version("mirada")


def test_the_command_is_installed() -> None:
    (command,) = entry_points(group="console_scripts", name="mirada")
    assert command.value == "mirada.cli.main:main"


def test_importing_the_package_imports_nothing_heavy() -> None:
    assert loaded_after("import mirada") == []


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["--version"], ["evaluate"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    what = f"""
from mirada.cli.main import main
sys.argv = ["mirada", *{arguments!r}]
try:
    main()
except SystemExit:
    pass
"""
    assert "torch" not in (names := loaded_after(what))
    assert "numpy" not in names
