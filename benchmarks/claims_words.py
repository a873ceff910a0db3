"""The sentences of docs/claims.md that no run changes, and how text and tables are set."""

import textwrap

import numpy as np

OPENING = """# What the field says, measured here

Five things that are said of vision transformers, each with its source, and beside it what small runs show: minutes on
one core of a CPU, a thousandth or less of what the papers trained. Such runs can show that something happens early.
They cannot refute what needs size, so where a claim does not show, the page says "not seen here". Every number and
every such verdict is written by a command from [the records of the runs](numbers/claims.jsonl)."""

RUNS = """{networks}

Images of 64 pixels (CIFAR-10 enlarged from 32), {updates} updates of {batch} by `mirada train` with its defaults,
accuracy on the same {measured:,} or more images that were not trained on. {seeds}. {machine}."""

DISTANCE = """## Early layers look near and far, late layers far

> Said: already in the lowest layers of ViT some heads attend to most of the image while others look near by, and the
> distance grows with depth (arXiv:2010.11929, section 4.5 and figure 7). With little data the early heads do not learn
> to look near (arXiv:2108.08810, section 4). The field on which a unit of a convolutional network effectively depends
> is much smaller than what its kernels could reach, and grows by training (arXiv:1701.04128).

![Attention distance by layer, and effective receptive fields](images/claims-distance.png)

{found}"""

BIAS = """## Little data wants convolutions

> Said: convolutional networks win where there are few images, transformers where there are very many: ViT-B/32 is much
> worse than ResNet-50 with 9 million images and better with 90 million (arXiv:2010.11929, section 4.3 and figure 4).
> CoAtNet joins the generalisation of the one and the capacity of the other (arXiv:2106.04803, sections 2 and 4).
> Stronger augmentation lets transformers do with fewer images (arXiv:2012.12877; arXiv:2106.10270).

![Accuracy against the number of images](images/claims-bias.png)

Accuracy in percent, by the share of the training split:

{found}"""

SCALE = """## Parameters want data

> Said: larger transformers gain more from more data, and learn more from each image too (arXiv:2010.11929, figure 4;
> arXiv:2106.04560, section 2).

![Accuracy against parameters](images/claims-scale.png)

{found}"""

OBJECTS = """## Attention without labels finds objects

> Said: the class token of a transformer that was trained by DINO attends to objects, that of the same network trained
> with labels much less: Jaccard 45.9 against 27.3, with random weights 22.0 (ViT-S/16 on Pascal VOC 2012,
> arXiv:2104.14294, figure 4).

The pictures are emoji at random places and sizes on photographs; labels are the groups of emoji, the mask is the
drawing's own transparency, and the drawings that are measured on are not among those trained on. As in the paper, the
head is the one that fits the mask best. Mind that a label here names the drawing alone, so whoever learns labels has
every reason to look at it. What each score means: [objects.md](objects.md).

![Pictures, masks, and attention with and without labels](images/claims-objects.jpg)

{found}"""

TASKS = """## What a pretext task looks like

> Said: a network that must tell how a photograph was turned (arXiv:1803.07728), in which order its tiles come
> (arXiv:1603.09246), on which side of a tile its neighbour lay (arXiv:1505.05192) or what colours a grey photograph had
> (arXiv:1603.08511) has to know something of what is in it.

![One photograph as four tasks show it](images/pretext.jpg)

All four are drawn by the objectives that `mirada train --objective` trains with, augmentation off. What they teach,
measured: [objectives.md](objectives.md). Photograph: Grocery Store Dataset (MIT)."""

REPEAT = """## Repeat

```
D="CIFAR-10 (JPEG copy)"; I="Imagenette (128 px, squashed)"
C="python benchmarks/claims.py"
$C train CIFAR10 --name "$D" --runs runs/claims --kinds ViT CoAtNet ResNet
$C train CIFAR10 --name "$D" --runs runs/claims --kinds "narrow ViT" "wide ViT" --shares 0.02 1
$C train IMAGENETTE --name "$I" --runs runs/claims --kinds ViT CoAtNet ResNet
$C train CIFAR10 --name "$D" --runs runs/longer --kinds ViT --shares 0.02 1 --steps 800
$C distance CIFAR10 --name "$D" --runs runs/claims
$C distance CIFAR10 --name "$D" --runs runs/longer
$C objects EMOJI/all.parquet PHOTOGRAPHS/all.parquet --runs runs/claims
$C look EMOJI/all.parquet PHOTOGRAPHS/all.parquet --runs runs/claims
$C tasks photograph.jpg
$C page
```

CIFAR10 and IMAGENETTE are folders with train.parquet and test.parquet or val.parquet (columns image, label,
label_name). More seeds: `--seeds 1 2`. DINO with its own views: `--states`. Runs are counted in
updates, so a slower machine changes nothing but the time. Attention by depth is read off the longest runs."""


def table(head: list[str], lines: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, ["---"] * len(head), *lines])


def listed(words: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def span(values: list[float], digits: int = 1) -> str:
    """The mean, and of several the lowest and the highest."""
    shown = f"{np.mean(values):.{digits}f}"
    return shown if len(values) == 1 else f"{shown} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def wrapped(text: str) -> str:
    """Paragraphs and the items of lists in lines of one length; tables, quotes, headings and code as they are."""
    blocks = []
    for block in text.split("\n\n"):
        lines = block.split("\n") if block.startswith("- ") else [block]
        if block[:1].isalnum() or (block[:1] in '"`-' and not block.startswith("```")):
            lines = [textwrap.fill(line, 120, subsequent_indent="  " * line.startswith("- "), break_long_words=False,
                                   break_on_hyphens=False) for line in lines]  # fmt: skip
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)
