"""What the numbers of a run say about its health, in plain words: a table of rules over the rows of metrics.jsonl.

Every threshold stands here with its name. They are chosen between what collapsed and what healthy runs of the tests and
of docs/objectives.md measured; chance levels are exact.
"""

import math
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any, NamedTuple

__all__ = ["HALF", "RULES", "Alarm", "diagnose"]

EARLY = 0.25  # share of a run before which nothing that only takes time is called a disease
HALF = 0.5  # and before which a task that stands at chance may still be about to be understood
LATEST = 3  # measurements of health, or a twentieth of the steps, that must agree; two in a run that has no more
AT_CHANCE = 0.99  # of the loss of one who knows nothing
ABOVE_CHANCE = 1.1
SAME_ANSWERS = 0.01  # information in answers; in healthy runs it may dip to 0.02 before it rises
ALL_PROTOTYPES = 0.9  # entropy of an answer that says nothing
ONE_PROTOTYPE = 0.05  # entropy of an answer that is certain
NO_DEVIATION = 0.02  # of features
NO_RANK = 1.6  # effective dimensions; untrained networks have 4 and more
LOST_RANK = 0.4  # of the highest rank that training has reached
AT_BOUND = 0.99  # of the largest scale that CLIP allows; one may have started there
SAME_IMAGES = 1e-3  # deviation of normalised pixels
RECENT = 20  # batches, of which some may have few captions
FEW_STEPS = 50  # updates of a whole run
SURELY_FEW = 30  # that are foreseen while it goes on: the first ones take long
FEW_OTHERS = 62  # images to tell one apart from: a batch of 32 in two views


class Alarm(NamedTuple):
    """One thing that is wrong: its name, a sentence with the figures, and a sentence on what to change."""

    name: str
    message: str
    advice: str


class Course:
    """What was measured so far, by name."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows = rows
        self.progress = max((row.get("progress", 0.0) for row in rows), default=0.0)
        known = dict.fromkeys(key for row in rows for key in row)  # a batch without captions has no relative loss
        self.terms = [key.partition("/")[0] for key in known if key.endswith("/relative_loss")]

    def values(self, key: str, since: float = 0.0, until: float = 1.0) -> list[float]:
        """All finite values, in order, between these points of the run."""
        rows = [row for row in self.rows if since <= row.get("progress", 0.0) <= until]
        found = [row[key] for row in rows if isinstance(row.get(key), (int, float))]
        return [value for value in found if math.isfinite(value)]

    def latest(self, key: str) -> list[float]:
        """The newest values: a twentieth of them, three at least where there are as many; all have to agree. What was
        measured at the start, before anything could go wrong, does not count. Empty where they are too few."""
        values = self.values(key, since=EARLY)
        return values[-max(LATEST, len(self.values(key)) // 20) :] if len(values) >= 2 else []

    def now(self, key: str) -> float:
        """The median of the newest values; nan where they are too few."""
        return median(latest) if (latest := self.latest(key)) else math.nan

    def says_the_same(self, term: str) -> bool:
        """Whether the answers of a term have long told nothing about which image it is, or have all been one."""
        told, unsure = self.latest(f"health/{term}_information"), self.latest(f"health/{term}_entropy")
        if self.young or not told:
            return False
        # Of the mean answer, which is as sure as that only where nearly all images have one prototype.
        entropy = max((one + other for one, other in zip(told, unsure, strict=False)), default=1.0)
        return max(told) < SAME_ANSWERS or entropy < ONE_PROTOTYPE

    @property
    def young(self) -> bool:
        """Whether it is too early to judge what only takes time."""
        return self.progress < EARLY


MORE_ADVICE = {
    "dino": ", or let the teacher follow more slowly: momentum=0.99 or more",
    "simclr": ", or raise its temperature, which may be too sharp: 0.1 to 0.5",
}  # fmt: skip
Rule = Callable[[Course], Iterator[Alarm]]


def diagnose(rows: list[dict[str, Any]]) -> list[Alarm]:
    """All that is wrong with a run, from the rows of its metrics.jsonl; empty where it is healthy. Works while it still
    runs, too."""
    course = Course(rows)
    return [alarm for rule in RULES for alarm in rule(course)]


def not_a_number(course: Course) -> Iterator[Alarm]:
    lost = next((row for row in course.rows if "loss" in row and row["loss"] is None), None)
    if lost is not None:
        yield Alarm(
            "not a number", f"The loss or its gradient was not a finite number at step {lost['step']:,}.",
            "Lower the learning rate (--lr; muon_learning_rate in a recipe), or use --precision float32.",
        )  # fmt: skip


def identical_images(course: Course) -> Iterator[Alarm]:
    values = course.values("health/image_deviation")
    if values and values[-1] < SAME_IMAGES:
        yield Alarm(
            "identical images", f"The images do not differ (their pixels deviate by {values[-1]:.1g}).",
            "Look at the data: is it one picture many times, or are all of them blank?",
        )  # fmt: skip


def collapse(course: Course) -> Iterator[Alarm]:
    for term in filter(course.says_the_same, course.terms):
        entropy, told = course.latest(f"health/{term}_entropy"), course.latest(f"health/{term}_information")
        figures = f"they tell {max(0.0, told[-1]):.1%} of what they could about which image it is"
        if min(entropy) > ALL_PROTOTYPES:
            yield Alarm(
                "uniform collapse",
                f"{term} gives every image the same answer, spread over all prototypes: {figures}, and the loss stands "
                f"at ln(K) times {course.now(f'{term}/relative_loss'):.3g}.",
                "Sharpen the targets: a lower teacher_temperature (or SwAV's epsilon), centring='sinkhorn'; or lower "
                "the learning rate (muon_learning_rate or --lr).",
            )  # fmt: skip
        else:
            yield Alarm(
                "one prototype",
                f"{term} gives every image the same few prototypes (entropy {entropy[-1]:.1%} of ln(K)): {figures}.",
                "Use centring='sinkhorn' or a centre_momentum below 1, and lower the learning rate.",
            )  # fmt: skip


def sharp_targets(course: Course) -> Iterator[Alarm]:
    # Later a network that has learned to tell images apart may well be sure.
    for term in () if course.young else course.terms:
        entropy = course.values(f"health/{term}_entropy", since=EARLY, until=HALF)[-LATEST:]
        if len(entropy) > 1 and max(entropy) < ONE_PROTOTYPE and not course.says_the_same(term):
            yield Alarm(
                "targets too sharp",
                f"{term} is taught one prototype per image as if it were a label (entropy {entropy[-1]:.1%} of ln(K)), "
                "which keeps the accidents of the first steps.",
                "Double teacher_temperature and early_temperature, or SwAV's epsilon.",
            )  # fmt: skip


def equal_features(course: Course) -> Iterator[Alarm]:
    deviation, ranks = course.latest("health/feature_deviation"), course.latest("health/rank")
    measured = deviation and ranks and not course.young
    if measured and (max(deviation) < NO_DEVIATION or max(ranks) < NO_RANK):
        yield Alarm(
            "equal features",
            f"All images get nearly the same feature, or multiples of it (deviation {deviation[-1]:.2g} of 1, "
            f"{ranks[-1]:.1f} effective dimensions).",
            "Lower the learning rate, or add a term that keeps features apart, such as dino(koleo=0.1).",
        )  # fmt: skip


def rank_falls(course: Course) -> Iterator[Alarm]:
    # Untrained features have more dimensions than they keep in the first steps, whatever becomes of them.
    ranks, latest = course.values("health/rank", since=EARLY), course.latest("health/rank")
    lost = latest and ranks and NO_RANK <= max(latest) < LOST_RANK * max(ranks)
    if not course.young and lost:
        yield Alarm(
            "rank falling", f"Features use {latest[-1]:.1f} dimensions (RankMe), down from {max(ranks):.1f}.",
            "Lower the learning rate, train for less long, or add dino(koleo=0.1) against it.",
        )  # fmt: skip


def nothing_learned(course: Course) -> Iterator[Alarm]:
    for term in () if course.young else course.terms:
        relative = course.now(f"{term}/relative_loss")
        if relative > ABOVE_CHANCE:
            yield Alarm(
                "diverging", f"{term} is worse than guessing: its loss is {relative:.2f} times that of chance.",
                f"Lower the learning rate (--lr; muon_learning_rate in a recipe){MORE_ADVICE.get(term, '')}.",
            )  # fmt: skip
        elif course.progress >= HALF and relative > AT_CHANCE and not course.says_the_same(term):
            yield Alarm(
                "nothing learned", f"{term} is at chance: its loss is {relative:.1%} of that of guessing.",
                "Train for longer or with larger images, or change the learning rate; the task may be too hard here.",
            )  # fmt: skip


def scale_at_its_bound(course: Course) -> Iterator[Alarm]:
    for term in () if course.young else course.terms:
        every, scale = course.values(f"{term}/logit_scale"), course.latest(f"{term}/logit_scale")
        bound = course.values(f"{term}/logit_bound") or ([100.0] if term == "clip" else [])  # older runs do not say
        if scale and bound and min(scale) > AT_BOUND * bound[-1] > every[0]:
            yield Alarm(
                "temperature at its bound",
                f"The scale of {term} has run from {every[0]:.0f} to {scale[-1]:.0f}: it is surer of its pairs than "
                "captions allow.",
                "Lower the learning rate, use a larger --batch, or look whether images stand in the data twice.",
            )  # fmt: skip


def few_others(course: Course) -> Iterator[Alarm]:
    for term in course.terms:
        others = course.values(f"{term}/others")
        if others and (usual := median(others[-RECENT:])) < FEW_OTHERS:
            yield Alarm(
                "batch too small", f"{term} tells each image apart from {usual:.0f} others only.",
                "Use a larger --batch (128 or more; --chunk keeps its memory small), or another method.",
            )  # fmt: skip


def few_steps(course: Course) -> Iterator[Alarm]:
    if course.young or not any(course.values("health/rank")):
        return
    done = course.progress >= 1
    count = round(max(row["step"] for row in course.rows) / course.progress)
    if count < (FEW_STEPS if done else SURELY_FEW):
        told = f"has made {count}" if done else f"will make about {count}"
        yield Alarm(
            "too few steps", f"The run {told} update{'s' * (count != 1)}, too few to learn much.",
            "Train for longer (--budget, --steps or --epochs), or with smaller batches of smaller images.",
        )  # fmt: skip


RULES: tuple[Rule, ...] = (
    not_a_number, identical_images, collapse, sharp_targets, equal_features, rank_falls, nothing_learned,
    scale_at_its_bound, few_others, few_steps,
)  # fmt: skip
