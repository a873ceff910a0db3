"""Data, model and optimiser of one run, from its settings; and who watches it."""

import os
from dataclasses import replace
from hashlib import blake2b
from inspect import signature
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mirada.backbones import build
from mirada.data.dataset import few, own_name
from mirada.data.decode import decode, to_canvas
from mirada.data.images import Images, Progress
from mirada.data.loader import Loader
from mirada.data.sources import open_data, require_classes
from mirada.data.splits import train_and_validation, with_captions
from mirada.data.statistics import canvas_side, colour_statistics, some_images
from mirada.doctor.health import Health
from mirada.errors import MiradaError
from mirada.evaluate.predict import Predictions
from mirada.language import sum_of_terms
from mirada.loading import load
from mirada.model import Model
from mirada.objectives import OBJECTIVES, Learner, Pairs, TwoTowers
from mirada.precision import choose_precision
from mirada.preprocess import Preprocess
from mirada.processes import agreed, processes, rank, start_alike
from mirada.train.average import Average
from mirada.train.batch_norm import synchronise
from mirada.train.check import check_network
from mirada.train.folder import RunFolder
from mirada.train.freeze import freeze
from mirada.train.loop import Step
from mirada.train.lora import add_lora, merged
from mirada.train.optimiser import build_optimisers, choose_optimiser
from mirada.train.settings import Settings
from mirada.train.take_over import take_over
from mirada.train.validation import Validation

__all__ = ["Monitor", "Run"]

PROBED = 256  # images whose features tell of a run's health


class Monitor:
    """Who watches a run; every method may be left as it is."""

    def note(self, text: str) -> None:
        """Something worth a line."""

    def progress(self, what: str, done: int, total: int) -> None:
        """Reading and measuring."""

    def step(self, step: Step, images: int) -> None:
        """After each update; `images` were seen by it."""

    def measured(self, step: int, metrics: dict[str, float]) -> None:
        """After each validation."""


PREPARED = 1 << 24  # pixels of all images together that a network is prepared with


class Run:
    """Data, model and optimiser of one run, built from its settings alone."""

    def __init__(self, data: str, settings: Settings, device: torch.device, strict: bool, monitor: Monitor) -> None:
        self.device, self.monitor = device, monitor
        start = load(settings.init, on_progress=monitor.progress) if settings.init is not None else None
        name = check_network(start, settings)
        dataset = open_data(data, strict=strict)
        parts = train_and_validation(dataset, settings.seed)
        terms = sum_of_terms(settings.objective)
        if all(issubclass(OBJECTIVES[term.name], TwoTowers) for term in terms):
            parts = with_captions(parts)
        for note in parts.notes:
            monitor.note(note)
        supervised = any(term.name == "supervised" for term in terms)
        self.classes = require_classes(dataset) if supervised else None
        torch.manual_seed(settings.seed)
        backbone = start.backbone if start else build(name)
        canvas = settings.canvas or canvas_side(parts.train, settings.image_size)

        def reader(encoded: bytes) -> tuple[Tensor, float]:
            return to_canvas(decode(encoded, at_least=canvas), canvas)

        self.images = Images(parts.train, reader, strict=strict, on_progress=monitor.progress)
        if len(self.images) < settings.batch:
            chunk = settings.chunk if settings.chunk and settings.chunk <= len(self.images) else None
            batch = len(self.images) // (chunk or 1) * (chunk or 1)
            monitor.note(f"The batch is {batch}, because there are only {len(self.images)} images.")
            settings = replace(settings, batch=batch, chunk=chunk)
        settings = self._shared_evenly(settings)
        halves = agreed(choose_precision(settings.precision, device) == "bfloat16", device)
        trained_by = start.provenance.get("optimiser") if start else None
        optimiser = choose_optimiser(settings, trained_by)
        self.settings = replace(settings, precision="bfloat16" if halves else "float32", optimiser=optimiser)
        mean, std = (start.preprocess.mean, start.preprocess.std) if start else colour_statistics(self.images)
        counts = np.bincount(self.images.labels[self.images.labels >= 0], minlength=len(self.classes or []))
        facts: dict[str, Any] = {"augment": settings.augment, "balanced": settings.balanced, "counts": counts.tolist()}
        if self.classes is not None:
            facts["classes"] = len(self.classes)
        if dataset.captioned:
            facts["pairs"] = Pairs(self.images.captions(np.arange(len(self.images))), start)
        preprocess = Preprocess(
            size=(settings.image_size, settings.image_size), resize=settings.resize, mean=mean, std=std
        )
        if start is None:
            some = some_images(self.images, most=min(1024, max(64, PREPARED // canvas**2)))[0]
            backbone.prepare(preprocess.normalise(some))  # before any objective copies it
        freeze(backbone, settings.freeze)
        if settings.lora:
            for tower in [backbone, *([start.text] if start and start.text else [])]:
                add_lora(tower, settings.lora)
        self.learner = Learner(backbone, settings.objective, balance=settings.balance, **facts).to(device)
        if settings.augment != Settings.augment and not any(
            "augment" in signature(type(objective)).parameters for _, objective in self.learner.terms()
        ):
            monitor.note(f"Nothing of {settings.objective} takes --augment: its terms have options of their own.")
        if settings.init is not None and (taken := take_over(self.learner, settings.init)):
            monitor.note(taken)
        synchronise(self.learner)
        start_alike(self.learner)
        self.loader = Loader(
            self.images, settings.batch // settings.parts, mean=torch.tensor(mean), std=torch.tensor(std),
            seed=settings.seed, device=device, prefetch=device.type != "cpu",
            rank=rank(), processes=processes(),
        )  # fmt: skip
        self.optimisers = build_optimisers(self.learner, self.settings)
        self.model = Model(
            name, self.learner.evaluated(), preprocess, head=self._head(start), classes=self.classes,
            mirror=settings.mirror,
            # A model goes to others, and tells of no folders.
            provenance={"objective": settings.objective, "data": own_name(data), "names": dataset.fingerprint,
                        "init": own_name(init) if (init := settings.init) and os.path.exists(init) else init,
                        "seed": settings.seed, "optimiser": optimiser} | ({"of": [start.provenance]} if start else {}),
        )  # fmt: skip
        # Not earlier: with the head that it starts from.
        self.average = Average(self.learner, settings.ema) if settings.ema else None
        if (towers := self.learner.towers()) is not None:
            self.model.add_towers(towers.text, towers.tokenizer, towers.project)
        self.validation = Validation(
            self.model, parts, captions=towers is not None, knew_words=bool(start and start.text), strict=strict,
            on_progress=monitor.progress,
        )  # fmt: skip
        if supervised and not self.validation.labels:
            monitor.note("No accuracy is measured: of the held-out images that can be read, none has a label.")
        if towers is not None and not self.validation.captions:
            monitor.note("No retrieval is measured: of the held-out images that can be read, none has a caption.")
        self.health: Health | None = None
        self._probe()
        self.skipped = [entry._asdict() for entry in dataset.skipped]

    def measure(
        self, limit: int | None = None, on_progress: Progress | None = None
    ) -> tuple[dict[str, float], Predictions | None]:
        """Metrics on the validation split, with the averaged weights if there are any; {} where it has neither labels
        nor captions that objectives ask for."""
        if self.validation.images is None:
            return {}, None
        if self.average is not None:
            self.average.swap(self.learner)
        try:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.precision == "bfloat16"):
                return self.validation.measure(limit, on_progress)
        finally:
            if self.average is not None:
                self.average.swap(self.learner)

    def _probe(self) -> None:
        """Choose the images whose features tell of the run's health; none where all is supervised."""
        if any(name != "supervised" for name in self.learner.objectives):
            pixels, labels = some_images(self.images, self.settings.image_size, PROBED)
            self.health = Health(self.model.preprocess.normalise(pixels.to(self.device)), labels)

    @property
    def facts(self) -> dict[str, Any]:
        """What the run's weights have learned to rely on, for its checkpoints."""
        pixels, tokens = self.model.preprocess, self.model.tokenizer
        words = "" if tokens is None or tokens.vocabulary is None else tokens.vocabulary
        return {
            "classes": self.classes, "images": len(self.images), "mean": list(pixels.mean), "std": list(pixels.std),
            "processes": processes(), "vocabulary": blake2b(words.encode(), digest_size=16).hexdigest(),
        }  # fmt: skip

    def go_on(self, facts: dict[str, Any]) -> None:
        """Be what an earlier part of the run was. Raises `MiradaError` where the data have other classes now."""
        was = facts.get("classes", self.classes)
        if was != self.classes:
            raise MiradaError(
                f"This run learned the classes {few(was or [])}, and the data have {few(self.classes or [])} now: "
                "bring back the former ones, or start a new run with another --out."
            )
        if facts.get("vocabulary", self.facts["vocabulary"]) != self.facts["vocabulary"]:
            raise MiradaError("This run learned its words from other captions than the data have now: bring back the "
                              "former ones, or start a new run with another --out.")  # fmt: skip
        if facts.get("images", len(self.images)) != len(self.images):
            self.monitor.note(f"There are {len(self.images):,} images to train on now, and there were "
                              f"{facts['images']:,} before.")  # fmt: skip
        if facts.get("processes", processes()) != processes():
            self.monitor.note(f"There are {processes()} processes now, and there were {facts['processes']} before: "
                              "they draw other random numbers.")  # fmt: skip
        mean, std = (tuple(facts.get(name, getattr(self.model.preprocess, name))) for name in ("mean", "std"))
        self.model.preprocess = replace(self.model.preprocess, mean=mean, std=std)
        self.loader.mean, self.loader.std = torch.tensor(mean), torch.tensor(std)
        self._probe()

    def save_model(self, folder: RunFolder, step: int) -> None:
        """Save what is learned so far as a model that can be used, and started from."""
        if self.average is not None:
            self.average.swap(self.learner)
        try:
            model = self.model
            if self.settings.lora:
                words = None if model.tokenizer is None else model.tokenizer.vocabulary
                model = Model.from_design(model.design, words)
                model.load_state_dict(merged(self.model))
            model.provenance |= {"steps": step}
            model.save(folder.model)
        finally:
            if self.average is not None:
                self.average.swap(self.learner)

    def all_skipped(self) -> list[dict[str, str]]:
        """Every file that took no part, with the reason."""
        images = self.validation.images
        validation = images.skipped_files() if images else self.validation.skipped
        return self.skipped + self.images.skipped_files() + validation

    def _shared_evenly(self, settings: Settings) -> Settings:
        """With a batch, or chunks, of which every process gets as many images: objectives compare across processes."""
        size = settings.batch // settings.parts
        even = size // processes() * processes()
        if not even:
            raise MiradaError(f"{size} images at a time are too few for {processes()} processes: use a larger --batch "
                              "or --chunk, more images, or fewer processes.")  # fmt: skip
        if even == size:
            return settings
        self.monitor.note(f"{even} instead of {size} images at a time, to share them among {processes()} processes.")
        return replace(settings, batch=even * settings.parts, chunk=settings.chunk and even)

    def _head(self, start: Model | None) -> nn.Linear | None:
        if self.classes is None:
            return None
        head = self.learner.get_submodule("objectives.supervised.head")
        assert isinstance(head, nn.Linear)
        same = start is not None and start.classes == self.classes and start.head_input == "pooled"
        if same and start is not None and start.head is not None:
            head.load_state_dict(start.head.state_dict())
        return head
