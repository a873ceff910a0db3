"""`mirada demo`."""

import os
import shlex
from typing import Annotated, Any

import typer

__all__ = ["EXAMPLE", "command"]

EXAMPLE = "Examples: [bold]mirada demo --budget 60s[/bold]; [bold]mirada demo --language es[/bold]"

STORY = {
    "en": """\
{drawings} drawings in {groups} groups; {held_out} held out

  always the largest group    {chance}
  5 nearest in plain pixels   {nearest}
  vision transformer          {accuracy}   (95% interval {low} to {high}; {seconds} s of training)

See what it learned and where it looks:  {report}
Use it:  mirada classify {run} PICTURE.png

The model that comes with Mirada, mirada:emoji, knows words and has never seen drawings of this style:
{searches}
  by words alone, the right group of nine   {sorted}

See every search, and where it looks:  {page}""",
    "es": """\
{drawings} dibujos en {groups} grupos; {held_out} apartados para medir

  siempre el grupo mayor            {chance}
  los 5 más parecidos en píxeles    {nearest}
  transformer de visión             {accuracy}   (intervalo del 95 %: de {low} a {high}; {seconds} s de entrenamiento)

Mira lo que ha aprendido y dónde mira:  {report}
Úsalo:  mirada classify {run} IMAGEN.png

El modelo que viene con Mirada, mirada:emoji, entiende palabras y nunca ha visto dibujos de este estilo:
{searches}
  solo con palabras, el grupo correcto de nueve   {sorted}

Mira todas las búsquedas y dónde mira el modelo:  {page}""",
}


def command(
    out: Annotated[str, typer.Option(metavar="DIR", help="Where drawings and runs go.")] = "mirada-demo",
    budget: Annotated[str | None, typer.Option(help="Training time; three minutes by default.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the split, weights, order and augmentation.")] = 0,
    language: Annotated[str | None, typer.Option(help="en or es; that of the system by default.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """The whole story in minutes, offline: draw, train, measure, look inside."""
    from mirada.cli.screen import Screen, print_json
    from mirada.demo import run_demo
    from mirada.errors import Misuse, blame_the_command
    from mirada.train.settings import parse_duration

    language = language or system_language()
    if language not in STORY:
        raise Misuse(f"The demo does not speak {language!r}: choose {' or '.join(STORY)}.")
    with blame_the_command():
        seconds = None if budget is None else parse_duration(budget)
    with Screen() as screen:
        result = run_demo(out, budget=seconds, seed=seed, monitor=screen, language=language)
    if as_json:
        print_json(result)
    else:
        print(story(result, language))


def system_language() -> str:
    """ "es" where the environment asks for Spanish, else "en"."""
    asked = next((value for key in ("LC_ALL", "LC_MESSAGES", "LANG") if (value := os.environ.get(key))), "")
    return "es" if asked.startswith("es") else "en"


def story(result: dict[str, Any], language: str) -> str:
    """What the demo found, in words, with numbers written as the language writes them."""

    def percent(share: float) -> str:
        return f"{share:6.1%}" if language == "en" else f"{100 * share:5.1f} %".replace(".", ",")

    def count(number: int) -> str:
        return f"{number:,}" if language == "en" else f"{number:,}".replace(",", ".")

    words = result["words"]
    told = [
        one for spoken in ("en", "es") for one in [one for one in words["searches"] if one["language"] == spoken][:2]
    ]
    low, high = (percent(bound).strip() for bound in result["interval"])
    return STORY[language].format(
        drawings=count(result["drawings"]), groups=len(result["groups"]), held_out=count(result["held_out"]),
        chance=percent(result["chance"]), nearest=percent(result["nearest_pixels"]),
        accuracy=percent(result["metrics"]["val/accuracy"]), low=low, high=high,
        seconds=round(result["train_seconds"]), report=result["report"], run=shlex.quote(result["run"]),
        searches="\n".join(f"  {one['query']:<20}{', '.join(one['found'][:3])}" for one in told),
        sorted=percent(words["sorted"]), page=words["page"],
    )  # fmt: skip
