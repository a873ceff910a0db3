"""Recipes, flags and durations: what is accepted, and how mistakes are named."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mirada.errors import MiradaError
from mirada.train.settings import Settings, parse_duration, read_recipe, read_settings, recipe_names


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("10m", 600), ("1.5h", 5400), ("1h30m", 5400), (12.5, 12.5)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "ten", "m", "0", "10 minutes", "1.2.3s", True])
def test_other_durations_are_refused(text: str) -> None:
    with pytest.raises(MiradaError, match="write it as 90s, 10m or 1h30m"):
        parse_duration(text)


@given(hours=st.integers(0, 99), minutes=st.integers(0, 59), seconds=st.integers(1, 59))
def test_durations_add_up(hours: int, minutes: int, seconds: int) -> None:
    assert parse_duration(f"{hours}h{minutes}m{seconds}s") == 3600 * hours + 60 * minutes + seconds


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_is_valid_and_survives_a_round_trip(name: str) -> None:
    settings = Settings().with_changes(read_recipe(name), name)
    again = Settings().with_changes(read_settings(yaml.safe_dump(settings.to_dict()), "config"), "config")
    assert again == settings


def test_a_new_length_replaces_the_old_one() -> None:
    settings = Settings(budget=60.0).with_changes({"epochs": 3}, "test")
    assert (settings.budget, settings.epochs) == (None, 3.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer": "adamw"}, "no setting 'optimizer' in here: did you mean 'optimiser'"),
        ({"batch": "many"}, "batch in here should be int, not 'many'"),
        ({"batch": True}, "batch in here should be int, not True"),
        ({"batch": 0}, "batch must be above 0"),
        ({"epochs": 2, "steps": 3}, "one of epochs, steps and budget, not epochs and steps"),
        ({"batch": 10, "chunk": 3}, "does not split into chunks of 3"),
        ({"seed": -1}, "seed must be 0 or more"),
        ({"optimiser": "sgd"}, "choose auto or adamw or muon"),
        ({"warmup": 1.0}, "at least 0 and below 1"),
        ({"learning_rate": -0.001}, "learning_rate must be 0 or more"),
        ({"muon_learning_rate": float("nan")}, "muon_learning_rate must be 0 or more"),
        ({"weight_decay": -1.0}, "weight_decay must be 0 or more"),
        ({"betas": [0.9, 1.0]}, "betas must be two numbers, at least 0 and below 1"),
        ({"betas": [0.9]}, "betas must be two numbers, at least 0 and below 1"),
        ({"betas": [0.9, "x"]}, "betas in here should be tuple"),
    ],
)
def test_mistakes_are_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(MiradaError, match=message):
        Settings().with_changes(changes, "here")


def test_images_of_another_size_keep_the_recipes_proportions() -> None:
    recipe = Settings(model="resnet-18", image_size=32, early_size=24, canvas=48)
    larger = recipe.with_changes({"image_size": 64}, "the command").scaled_to(32)
    assert (larger.early_size, larger.canvas) == (48, 96)
    assert recipe.scaled_to(32) == recipe
    fashion = Settings(model="vit-nano/4(depth=6)", image_size=32, early_size=20).scaled_to(28)
    assert fashion.early_size == 24  # 22.9 does not divide into patches of 4
    assert Settings(model="vit-s", image_size=80, early_size=32).scaled_to(64).early_size == 48  # 40, of 16
    assert Settings(image_size=64).scaled_to(32) == Settings(image_size=64)


def test_numbers_as_yaml_writes_them() -> None:
    values = read_settings("learning_rate: 1e-3\nlayer_decay: 1\nbudget: 2m\nbetas: [0.9, 0.95]", "here")
    settings = Settings().with_changes(values, "here")
    assert (settings.learning_rate, settings.layer_decay, settings.budget) == (0.001, 1.0, 120.0)
    assert settings.betas == (0.9, 0.95)


def test_a_newer_format_is_refused() -> None:
    with pytest.raises(MiradaError, match=r"newer Mirada \(format 99.*upgrade"):
        read_settings("format: 99\nbatch: 3", "config.yaml")


@pytest.mark.parametrize("text", ["- a list", "just words", "a: [1", ""])
def test_other_files_are_refused(text: str) -> None:
    with pytest.raises(MiradaError, match="there"):
        read_settings(text, "there")


def test_an_unknown_recipe_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(MiradaError, match="did you mean 'demo'"):
        read_recipe("dmeo")
    file = tmp_path / "mine.yaml"
    file.write_text("batch: 7")
    assert read_recipe(str(file)) == {"batch": 7}
