"""docs/claims.md from the records of the runs: every number and every verdict is taken from them."""

import math

import numpy as np
from claims_figures import COLOURS, WIDTHS, Rows, longest_vit, means, names_of
from claims_words import BIAS, DISTANCE, OBJECTS, OPENING, REPEAT, RUNS, SCALE, TASKS, listed, span, table, wrapped

SHARES = (0.02, 0.1, 0.3, 1.0)
MARGIN = 1.0  # pixels of attention distance
LEVEL = 2.0  # standard errors of a difference below which two networks count as level


def newest(rows: Rows) -> Rows:
    """Of records of the same run, the last one; networks that were trained for longer have that in their name."""
    keys = ("claim", "data", "kind", "share", "seed", "state", "steps")
    rows = list({tuple(row.get(key) for key in keys): row for row in rows}.values())
    usual = min((row["steps"] for row in rows if "kind" in row), default=0)
    longer = [row for row in rows if "kind" in row and row["steps"] > usual]
    others = [row for row in rows if row not in longer]
    return [*others, *(row | {"kind": f"{row['kind']}, {row['steps']:,} updates"} for row in longer)]


def of(rows: Rows, claim: str) -> Rows:
    return [row for row in rows if row["claim"] == claim]


def distance_text(rows: Rows) -> str:
    """Verdicts on attention by depth, from the heads of the transformer, and on what stages see."""
    vit = longest_vit(rows)
    shares = sorted({row["share"] for row in vit})
    little, much = (next(row for row in vit if (row["state"], row["share"]) == ("trained", share))
                    for share in (shares[0], shares[-1]))  # fmt: skip
    first, last, near = much["heads"][0], much["heads"][-1], min(little["heads"][0])
    wide = max(first) - min(first) > max(last) - min(last) + MARGIN
    far = float(np.mean(last)) > float(np.mean(first)) + MARGIN
    verdict = {
        (True, True): "Both halves of the claim are seen here",
        (True, False): "Early heads do differ more than late ones here, but that late layers look farther is not seen",
        (False, True): "Late layers do look farther here, but that early heads differ more than late ones is not seen",
        (False, False): "Neither half of the claim is seen here",
    }[wide, far]
    fields = {(row["kind"], row["state"]): [value for name, value in row["fields"] if name != "end"] for row in rows
              if row["share"] == max(row["share"] for row in rows) and row["seed"] == 0}  # fmt: skip
    lines = [[kind, state, f"{found[0]:.1f}", f"{found[-1]:.1f}", f"{found[-1] / found[0]:.1f}"]
             for kind in (*COLOURS, much["kind"]) for state in ("untrained", "trained")
             if (found := fields.get((kind, state)))]  # fmt: skip
    lines = list({tuple(line): line for line in lines}.values())
    changes = [f"{'wider' if fields[kind, 'trained'][-1] > fields[kind, 'untrained'][-1] else 'narrower'} in {kind}"
               for kind in COLOURS if (kind, "trained") in fields and (kind, "untrained") in fields]  # fmt: skip
    return f"""{verdict}. After {much["steps"]:,} updates on all of {much["data"]} the heads of the first layer look
{min(first):.1f} to {max(first):.1f} pixels far, in the mean {np.mean(first):.1f}; those of the last {min(last):.1f} to
{max(last):.1f}, in the mean {np.mean(last):.1f}. Attention spread evenly over the image would be {much["even"][0]:.1f}.
That heads which look near need much data is {"seen" if min(first) < near - MARGIN else "not seen"}: the nearest of the
first layer looks {near:.1f} pixels far after as many updates on {100 * shares[0]:g}% of the data. A difference of less
than {MARGIN:g} pixel counts as none.

Effective receptive fields: the mean distance, in pixels, from the middle place to the pixels that its features depend
on, weighted by how much. Training makes the last one {listed(changes)}.

{table(["network", "", "first stage or layer", "last", "ratio"], lines)}"""


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
    noise = LEVEL * math.hypot(*(error(ours[images], theirs[images], measured) for images in (both[0], both[-1])))
    gains = leads[-1] - leads[0]
    change = "it gains on the other with more data" if gains > noise else "it falls behind with more data"
    change = change if abs(gains) > noise else "more data neither help nor harm it more than the other"
    return (f"- {name}, ViT beside {other}: {numbers} points from {both[0]:,} to {both[-1]:,} images; {verdict}; "
            f"{change}.")  # fmt: skip


def bias_text(rows: Rows) -> str:
    names = [name for name in names_of(rows) if means(rows, name, "ViT")]
    lines = []
    for name in names:
        for kind in (*COLOURS, *sorted({row["kind"] for row in rows if "updates" in row["kind"]})):
            by_share: dict[float, list[float]] = {}
            for row in rows:
                if (row["data"], row["kind"]) == (name, kind):
                    by_share.setdefault(row["share"], []).append(row["accuracy"])
            if by_share:
                lines.append([name, kind, *(span(by_share[share]) if share in by_share else "" for share in SHARES)])
    verdicts = [crossing(rows, name, other) for name in names for other in ("CoAtNet", "ResNet")
                if len(set(means(rows, name, other)) & set(means(rows, name, "ViT"))) > 1]  # fmt: skip
    passes = []
    for name in names:
        own = [row for row in rows if row["data"] == name and row["kind"] in COLOURS]
        amounts = sorted({row["images"] for row in own})
        seen = own[0]["steps"] * own[0]["batch"]
        passes.append(f"{seen / amounts[0]:.1f} to {seen / amounts[-1]:.1f} passes over {name}")
    return f"""{table(["data", "network", *(f"{100 * share:g}%" for share in SHARES)], lines)}

{chr(10).join(verdicts)}

"Level" is within {LEVEL:g} standard errors of the difference. Every run on the curves has the same number of updates,
which are {listed(passes)}: the right end of a curve says how fast a network learns as much as what data it needs."""


def scale_text(rows: Rows, name: str) -> str:
    amounts = sorted({row["images"] for row in rows if row["data"] == name and row["kind"] == "wide ViT"})
    size = {row["kind"]: row["parameters"] for row in rows}
    scores = {kind: means(rows, name, kind) for kind in (*WIDTHS, "CoAtNet", "ResNet")}
    lines = [[kind, f"{size[kind] / 1e6:.2f}", *(f"{scores[kind][amount]:.1f}" for amount in amounts)]
             for kind in sorted(scores, key=lambda kind: size.get(kind, 0))
             if all(amount in scores[kind] for amount in amounts)]  # fmt: skip
    gains = [scores["wide ViT"][amount] - scores["narrow ViT"][amount] for amount in amounts]
    measured = min(row["measured"] for row in rows if row["data"] == name)
    noise = LEVEL * math.hypot(*(error(scores["wide ViT"][amount], scores["narrow ViT"][amount], measured)
                                 for amount in (amounts[0], amounts[-1])))  # fmt: skip
    return f"""{table(["network", "million parameters", *(f"{amount:,} images" for amount in amounts)], lines)}

From the narrow to the wide transformer, {size["wide ViT"] / size["narrow ViT"]:.0f} times the parameters, accuracy
changes by {gains[0]:+.1f} points with {amounts[0]:,} images and by {gains[-1]:+.1f} with {amounts[-1]:,}. That width
pays more where there is more data is {"seen" if gains[-1] > gains[0] + noise else "not seen"} here ({LEVEL:g} standard
errors of the difference are {noise:.1f} points)."""


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

`{one["model"]}`, {one["batch"]} of {one["train_images"]:,} pictures in an update, {longest:,} updates being
{longest * one["batch"] / one["train_images"]:.1f} passes; {one["measured"]} other pictures measured; seed
{listed(sorted({str(row["seed"]) for row in rows}))}.
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
        updates = listed([f"{steps:,}" for steps in sorted({row["steps"] for row in bias if row["kind"] in COLOURS})])
        parts.append(RUNS.format(
            networks=networks(bias), updates=updates, batch=bias[0]["batch"], seeds=seeds, machine=rows[0]["machine"],
            measured=min(row["measured"] for row in bias),
        ))  # fmt: skip
    if distance:
        parts.append(DISTANCE.format(found=distance_text(distance)))
    if bias:
        shown = [row for row in bias if row["kind"] not in (WIDTHS[0], WIDTHS[2])]
        parts.append(BIAS.format(found=bias_text(shown)))
    parts += [SCALE.format(found=scale_text(bias, name)) for name in scaled[:1]]
    if objects:
        parts.append(OBJECTS.format(found=objects_text(objects)))
    return wrapped("\n\n".join([*parts, TASKS, REPEAT])) + "\n"
