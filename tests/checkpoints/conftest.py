"""What all parity tests share: a peer with nothing hidden by zeros, and the table that they fill.

`make parity` writes docs/checkpoints.md from what these tests measure.
"""

import json
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import torch
from hub_server import Hub, serving
from peers import import_torchvision
from saved import Outer
from tiny_repository import CARD, REPO, weights
from torch import Tensor, nn

import_torchvision()  # before a test imports timm, open_clip or transformers, which want it

PAGE = Path(__file__).parents[2] / "docs" / "checkpoints.md"
TOLERANCE = 2e-5  # of the largest number in the original's output, in float32
Outputs = Mapping[str, tuple[Tensor, Tensor]]
Parity = Callable[[str, str, Outputs], None]


@pytest.fixture(scope="session")
def measured() -> Iterator[list[dict[str, object]]]:
    """The rows of the session, written where MIRADA_PARITY says when it ends."""
    rows: list[dict[str, object]] = []
    yield rows
    if target := os.environ.get("MIRADA_PARITY"):
        Path(target).write_text(json.dumps(rows, indent=1))


@pytest.fixture
def parity(measured: list[dict[str, object]], request: pytest.FixtureRequest) -> Parity:
    """`parity(family, variant, {"encode_image": (ours, theirs), ...})`: each output equals the original's, and the
    largest error becomes a row of the table in docs/checkpoints.md."""

    def compare(family: str, variant: str, outputs: Outputs) -> None:
        errors = {}
        for name, (ours, theirs) in outputs.items():
            assert ours.shape == theirs.shape, f"{name}: {tuple(ours.shape)} and {tuple(theirs.shape)}"
            assert theirs.isfinite().all(), f"{name}: the original's output is not finite"
            scale = theirs.abs().max().item()
            assert theirs.std().item() > 1e-3 * scale > 0, f"{name}: the original says nothing"
            errors[name] = (ours.double() - theirs.double()).abs().max().item() / scale
        if "MIRADA_PARITY" not in os.environ:
            assert f"| {family} | {variant} |" in PAGE.read_text(), "a row is missing in the page: run `make parity`"
        measured.append({"family": family, "variant": variant, "errors": errors, "test": request.node.nodeid})
        assert max(errors.values()) < TOLERANCE, errors

    return compare


@pytest.fixture(scope="session")
def randomise() -> Callable[..., nn.Module]:
    """`randomise(module)` fills every parameter and buffer, so that norms, biases, gains, tokens, position tables and
    running statistics all matter; matrices stay small enough for deep networks to stay finite."""

    @torch.no_grad()
    def fill(module: nn.Module, seed: int = 0) -> nn.Module:
        generator = torch.Generator().manual_seed(seed)
        kept = module.state_dict().keys()  # buffers that are not saved are constants
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            if (
                name not in kept
                or not tensor.is_floating_point()
                or re.search("periods|inv_freq|relative_position_index|attn_mask", name)
            ):
                continue  # counters, indices and constants
            noise = torch.randn(tensor.shape, generator=generator)
            if "running_var" in name:
                tensor.copy_(1 + 0.2 * noise.abs())
            elif tensor.ndim >= 2:
                fan_in = tensor[0].numel() if tensor.ndim != 3 else tensor.shape[-1]
                tensor.copy_(noise * (0.7 / fan_in**0.5 if tensor.ndim != 3 else 0.3))
            elif name.endswith("logit_scale"):
                tensor.fill_(2.3)
            elif name.endswith("weight") or "gamma" in name or "lambda" in name:
                tensor.copy_(1 + 0.2 * noise)  # gains
            else:
                tensor.copy_(0.2 * noise)
        return module.eval()

    return fill


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub on this machine that HF_ENDPOINT names, with an empty cache and no token: `hub.add(repo, files)`."""
    from huggingface_hub import constants
    from huggingface_hub.utils import close_session

    from mirada.checkpoints import hub as client

    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE",
                 "TRANSFORMERS_OFFLINE"):  # fmt: skip
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "hf" / "token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    if asks := sys.modules.get("huggingface_hub.utils._detect_agent"):  # the real hub, once a day
        monkeypatch.setattr(asks, "_registry", {"standardEnvVars": [], "harnesses": {}})
    monkeypatch.setattr(client, "PAUSE", 0.0)
    (tmp_path / "hub").mkdir()
    with serving(tmp_path / "hub") as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server
        close_session()


@pytest.fixture
def tiny(hub: Hub) -> Hub:
    """The hub with one repository of four files."""
    hub.add(REPO, {"model.safetensors": weights(), "config.json": '{"depth": 1}', "README.md": CARD, "onnx/a.txt": "a"})
    return hub


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Tensor]]:
    """A saved TorchScript program, and its state dict; not to be changed."""
    path = tmp_path_factory.mktemp("script") / "ViT-X.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is old; files of it are not going away
        script = torch.jit.script(Outer())
        torch.jit.save(script, path)
    return path, dict(script.state_dict())
