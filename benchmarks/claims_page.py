"""docs/claims.md from the records of the runs: every number and every verdict is taken from them."""

import math

import numpy as np
from claims_figures import COLOURS, WIDTHS, Rows, means, names_of
from claims_words import BIAS, DISTANCE, OBJECTS, OPENING, REPEAT, RUNS, SCALE, TASKS, listed, span, table, wrapped

SHARES = (0.02, 0.1, 0.3, 1.0)
LEVEL = 2.0  # standard errors of a difference below which two networks count as level


def newest(rows: Rows) -> Rows:
    """Of records of the same run, the last one."""
    keys = ("claim", "data", "kind", "share", "seed", "state", "steps")
    return list({tuple(row.get(key) for key in keys): row for row in rows}.values())


def of(rows: Rows, claim: str) -> Rows:
    return [row for row in rows if row["claim"] == claim]


def distance_text(rows: Rows) -> str:
    """Verdicts on attention by depth, from the heads of the transformer, and on what stages see."""
    vit = {(row["state"], row["share"]): row for row in rows if row["kind"] == "ViT" and row["seed"] == 0}
    shares = sorted({share for _, share in vit})
    little, much = vit["trained", shares[0]], vit["trained", shares[-1]]
    first, last = much["heads"][0], much["heads"][-1]
    wide = max(first) - min(first) > max(last) - min(last)
    far = np.mean(last) > np.mean(first)
    nearer = min(much["heads"][0]) < min(little["heads"][0])
    verdict = {
        (True, True): "Both halves of the claim are seen here",
        (True, False): "Early heads do differ more than late ones here, but late layers do not look farther on average",
        (False, True): "Late layers do look farther on average here, but early heads do not differ more than late ones",
        (False, False): "Neither half of the claim is seen here",
    }[wide, bool(far)]
    lines = [
        [kind, state, *(f"{value:.1f}" for value in (fields[0], fields[-1])), f"{fields[-1] / fields[0]:.1f}"]
        for kind in COLOURS for state in ("untrained", "trained")
        for row in rows if (row["kind"], row["state"], row["share"], row["seed"]) == (kind, state, shares[-1], 0)
        for fields in [[value for name, value in row["fields"] if name != "end"]]
    ]  # fmt: skip
    head = ["network", "", "first stage or layer", "last", "ratio"]
    return f"""{verdict}. Trained on all of {much["data"]}, the heads of the first layer look \
{min(first):.1f} to {max(first):.1f} pixels far, in the mean {np.mean(first):.1f}; those of the last \
{min(last):.1f} to {max(last):.1f}, in the mean {np.mean(last):.1f}. Attention spread evenly over the image would be \
{much["even"][0]:.1f}. That heads which look near need much data is {"seen" if nearer else "not seen"} here: the \
nearest of the first layer looks {min(little["heads"][0]):.1f} pixels far after {100 * shares[0]:g}% of the data and \
{min(first):.1f} after all of it.

Effective receptive fields: the mean distance, in pixels, from the middle place to the pixels that its features depend
on, weighted by how much. A transformer's tokens depend mostly on their own patch even in the last layer, through the
shortcuts; what a convolution sees grows with its stages.

{table(head, lines)}"""


def error(first: float, second: float, measured: int) -> float:
    """Standard error in points of the difference of two accuracies, as if measured on different images."""
    return 100 * math.sqrt(sum(value / 100 * (1 - value / 100) for value in (first, second)) / measured)


def crossing(rows: Rows, name: str, other: str) -> str:
    """Where the transformer's curve lies beside another one."""
    ours, theirs = means(rows, name, "ViT"), means(rows, name, other)
    both = [images for images in ours if images in theirs]
    measured = min(row["measured"] for row in rows if row["data"] == name)
    leads = [ours[images] - theirs[images] for images in both]
    sure = [lead if abs(lead) > LEVEL * error(ours[images], theirs[images], measured) else 0
            for images, lead in zip(both, leads, strict=True)]  # fmt: skip
    signs = [int(np.sign(lead)) for lead in sure]
    numbers = ", ".join(f"{lead:+.1f}" for lead in leads)
    if {1, -1} <= set(signs):
        where = next(place for place in range(1, len(signs)) if signs[place] != signs[0])
        verdict = f"the curves cross between {both[where - 1]:,} and {both[where]:,} images"
    elif not any(signs):
        verdict = "the curves are level throughout"
    else:
        ahead = "ahead" if max(signs) > 0 else "behind"
        level = [f"{images:,}" for images, sign in zip(both, signs, strict=True) if not sign]
        verdict = f"the curves do not cross: ViT is {ahead}" + (f", level with {listed(level)} images" if level else "")
    return f"- {name}, ViT beside {other}: {numbers} points from {both[0]:,} to {both[-1]:,} images; {verdict}."


def bias_text(rows: Rows) -> str:
    names = [name for name in names_of(rows) if means(rows, name, "ViT")]
    lines = []
    for name in names:
        for kind in COLOURS:
            by_share: dict[float, list[float]] = {}
            for row in rows:
                if (row["data"], row["kind"]) == (name, kind):
                    by_share.setdefault(row["share"], []).append(row["accuracy"])
            lines.append([name, kind, *(span(by_share[share]) if share in by_share else "" for share in SHARES)])
    verdicts = [crossing(rows, name, other) for name in names for other in ("CoAtNet", "ResNet")
                if len(set(means(rows, name, other)) & set(means(rows, name, "ViT"))) > 1]  # fmt: skip
    passes = []
    for name in names:
        own = [row for row in rows if row["data"] == name]
        amounts = sorted({row["images"] for row in own})
        seen = own[0]["steps"] * own[0]["batch"]
        passes.append(f"{seen / amounts[0]:.1f} to {seen / amounts[-1]:.1f} passes over {name}")
    return f"""{table(["data", "network", *(f"{100 * share:g}%" for share in SHARES)], lines)}

{chr(10).join(verdicts)}

"Level" is within {LEVEL:g} standard errors of the difference. Every run has the same number of updates, so these are
{listed(passes)}: the right end of a curve says how fast a network learns as much as how much data it needs."""


def scale_text(rows: Rows, name: str) -> str:
    amounts = sorted({row["images"] for row in rows if row["data"] == name and row["kind"] == "wide ViT"})
    size = {row["kind"]: row["parameters"] for row in rows}
    scores = {kind: means(rows, name, kind) for kind in (*WIDTHS, "CoAtNet", "ResNet")}
    lines = [[kind, f"{size[kind] / 1e6:.2f}", *(f"{scores[kind][amount]:.1f}" for amount in amounts)]
             for kind in sorted(scores, key=lambda kind: size.get(kind, 0))
             if all(amount in scores[kind] for amount in amounts)]  # fmt: skip
    gains = [scores["wide ViT"][amount] - scores["narrow ViT"][amount] for amount in amounts]
    more = gains[-1] > gains[0]
    return f"""{table(["network", "million parameters", *(f"{amount:,} images" for amount in amounts)], lines)}

From the narrow to the wide transformer, {size["wide ViT"] / size["narrow ViT"]:.0f} times the parameters, accuracy
changes by {gains[0]:+.1f} points with {amounts[0]:,} images and by {gains[-1]:+.1f} with {amounts[-1]:,}: that width
pays more where there is more data is {"seen" if more else "not seen"} here."""


def objects_text(rows: Rows) -> str:
    """A row for each way of training and length, and whether the best without labels beats the one with them."""
    groups: dict[tuple[int, str], Rows] = {}
    for row in sorted(rows, key=lambda row: row["steps"]):
        groups.setdefault((row["steps"], row["state"]), []).append(row)
    metrics = ("jaccard", "max_f", "corloc", "token-cut/jaccard")
    one, longest = rows[0], max(row["steps"] for row in rows)
    lines = [
        [
            "nothing (random weights)",
            "0",
            *(
                span([row["metrics"][f"random/{key}"] for row in rows if row["seed"] == one["seed"]][:1])
                for key in metrics
            ),
        ]
    ]
    lines += [[state, str(steps), *(span([row["metrics"][key] for row in own]) for key in metrics)]
              for (steps, state), own in groups.items()]  # fmt: skip
    lines.append(["a box in the middle", "", *(f"{one['metrics'][f'centre/{key}']:.1f}" for key in metrics[:3]), ""])
    objectives = {row["state"]: row["objective"] for row in rows if row["state"] != "with labels"}
    text = f"""{table(["trained", "updates", "Jaccard", "max F", "CorLoc", "Jaccard of TokenCut"], lines)}

`{one["model"]}`, {one["batch"]} of {one["train_images"]:,} pictures in an update, {one["measured"]} others measured.
{" ".join(f"{state}: `{objective}`." for state, objective in objectives.items())}"""
    labelled = groups.get((longest, "with labels"))
    free = {state: own for (steps, state), own in groups.items() if steps == longest and state != "with labels"}
    if not labelled or not free:
        return text
    score = {state: float(np.mean([row["metrics"]["jaccard"] for row in own])) for state, own in free.items()}
    best = max(score, key=lambda state: score[state])
    theirs = float(np.mean([row["metrics"]["jaccard"] for row in labelled]))
    return f"""{text}

The claim is {"seen" if score[best] > theirs else "not seen"} here: after {longest:,} updates the attention of {best}
scores {score[best]:.1f}, that of training with labels {theirs:.1f}."""


def networks(rows: Rows) -> str:
    """What was trained, as a list."""
    kinds = {row["kind"]: row for row in rows}
    return "\n".join(f"- {kind}: `{kinds[kind]['model']}`, {kinds[kind]['parameters'] / 1e6:.2f} million parameters"
                     for kind in (*COLOURS, "narrow ViT", "wide ViT") if kind in kinds)  # fmt: skip


def page(rows: Rows) -> str:
    """The whole page; a part whose runs are not recorded is left out."""
    rows = newest(rows)
    bias, distance, objects = (of(rows, claim) for claim in ("bias", "distance", "objects"))
    scaled = [name for name in names_of(bias) if means(bias, name, "wide ViT") and means(bias, name, "narrow ViT")]
    parts = [OPENING]
    if bias:
        more = listed([str(seed) for seed in sorted({row["seed"] for row in bias} - {0})] or [""])
        seeds = "Seed 0" + (f"; {more} too where the lowest and highest are in brackets after the mean" if more else "")
        updates = listed([f"{steps:,}" for steps in sorted({row["steps"] for row in bias})])
        parts.append(RUNS.format(
            networks=networks(bias), updates=updates, batch=bias[0]["batch"], seeds=seeds, machine=rows[0]["machine"],
            measured=min(row["measured"] for row in bias),
        ))  # fmt: skip
    if distance:
        parts.append(DISTANCE.format(found=distance_text(distance)))
    if bias:
        parts.append(BIAS.format(found=bias_text([row for row in bias if row["kind"] in COLOURS])))
    parts += [SCALE.format(found=scale_text(bias, name)) for name in scaled[:1]]
    if objects:
        parts.append(OBJECTS.format(found=objects_text(objects)))
    return wrapped("\n\n".join([*parts, TASKS, REPEAT])) + "\n"
