"""What the hub refuses, or cannot answer, is said in a sentence that says what to do."""

import pytest
from hub_server import Hub
from tiny_repository import REPO

from mirada.checkpoints.hub import HubFiles, facts
from mirada.errors import MiradaError


@pytest.mark.usefixtures("tiny")
def test_no_such_model(monkeypatch: pytest.MonkeyPatch) -> None:
    for token in ("", "hf_right"):
        monkeypatch.setenv("HF_TOKEN", token)
        for ask in (lambda: HubFiles("someone/gone").names(), lambda: HubFiles("someone/gone").path("config.json"),
                    lambda: facts("someone/gone")):  # fmt: skip
            with pytest.raises(
                MiradaError, match=r"There is no model someone/gone on http.*check the name.*hf auth login"
            ):
                ask()
    with pytest.raises(MiradaError, match="'some one/x' is no name of a model on the hub: these look like ORG/NAME"):
        HubFiles("some one/x")


def test_a_gated_model(tiny: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.gated.add(REPO)
    said = (
        rf"{REPO} is gated: accept its licence on {tiny.url}/{REPO}, then log in with `hf auth login` or set HF_TOKEN"
    )
    assert facts(REPO).gated
    with pytest.raises(MiradaError, match=said):
        HubFiles(REPO).path("model.safetensors")
    monkeypatch.setenv("HF_TOKEN", "hf_right")  # logged in, and the licence not accepted
    with pytest.raises(MiradaError, match=said):
        HubFiles(REPO).path("model.safetensors")
    tiny.tokens.add("hf_right")
    assert HubFiles(REPO).path("model.safetensors") is not None
    sent = {one.cdn: one.headers["Authorization"] for one in tiny.requests[-4:]}
    assert sent == {False: "Bearer hf_right", True: None}  # the token is for the hub alone


@pytest.mark.parametrize(("status", "said"), [
    (500, "answers 500 for its files of someone/tiny: try again later"), (403, "You may not read someone/tiny"),
    (429, "asks to be left alone for a while"), (418, "answers 418"),
])  # fmt: skip
def test_a_hub_that_is_not_well(tiny: Hub, status: int, said: str) -> None:
    tiny.fail = {"/api/models": status}
    with pytest.raises(MiradaError, match=said):
        HubFiles(REPO).names()


def test_a_hub_that_is_unwell_for_a_moment(tiny: Hub) -> None:
    tiny.fail, tiny.fail_times = {"/": 503}, 3
    assert len(HubFiles(REPO).names()) == 4
    tiny.fail_times = 3
    assert HubFiles(REPO).json("config.json") == {"depth": 1}
    tiny.fail_times = 2  # of which one is the CDN's
    assert HubFiles(REPO).path("model.safetensors") is not None


def test_a_server_that_is_no_hub(tiny: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", tiny.cdn)
    with pytest.raises(MiradaError, match=r"There is no model someone/tiny on http.*check the name and HF_ENDPOINT"):
        HubFiles(REPO).names()
