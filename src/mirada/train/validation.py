"""What a run is measured on: images it does not learn from, with their labels or captions."""

import numpy as np

from mirada.data.images import Images, NoImages, Progress
from mirada.data.splits import TrainAndValidation
from mirada.evaluate.accuracy import accuracy
from mirada.evaluate.pairs import pair_retrieval
from mirada.evaluate.predict import Predictions, evaluation_images, predict
from mirada.model import Model
from mirada.processes import rank
from mirada.train.retention import Retention

__all__ = ["Validation"]


class Validation:
    """Of a model with a head, its accuracy; of one that learns captions, how well these and images find each other;
    and of one that knew words before, how much of that is left. Nothing where the data have neither.

    Attributes:
        name: "val" or "test", what the split truly is.
        images: None where there is nothing to measure.
        skipped: its files that take no part, with the reason.
    """

    def __init__(
        self, model: Model, parts: TrainAndValidation, *, captions: bool, knew_words: bool, strict: bool,
        on_progress: Progress,
    ) -> None:  # fmt: skip
        source = parts.validation
        self.model, self.name = model, parts.name
        self.labels = model.classes is not None and source.labels is not None and bool((source.labels >= 0).any())
        self.captions = captions and source.captions is not None
        self.images: Images | None = None
        self.skipped: list[dict[str, str]] = []
        self.paired = 0
        self.retention: Retention | None = None
        if (self.labels or self.captions) and rank() == 0:  # nobody else measures
            try:
                self.images = evaluation_images(model, source, strict=strict, on_progress=on_progress)
            except NoImages as error:
                self.labels = self.captions = False
                self.skipped = error.skipped
                return
            self.skipped = self.images.skipped_files()
            self.labels = self.labels and bool((self.images.labels >= 0).any())
            self.captions = self.captions and any(self.images.captions(np.arange(len(self.images))))
            if not self.labels and not self.captions:
                self.images = None
            if self.images is not None and self.captions and knew_words:
                self.retention = Retention(model, self.images)  # before any step

    def measure(
        self, limit: int | None, on_progress: Progress | None
    ) -> tuple[dict[str, float], Predictions | None]:  # fmt: skip
        """{"val/accuracy": ...} and so on, of all images or of `limit` of them; and what a head said of each. `paired`
        is then how many images captions were asked of."""
        metrics: dict[str, float] = {}
        predictions: Predictions | None = None
        if self.images is not None and self.labels:
            predictions = predict(self.model, self.images, limit=limit, on_progress=on_progress)
            metrics |= dict(accuracy(predictions))
        if self.images is not None and self.captions:
            pairs = pair_retrieval(self.model, self.images, limit=limit, on_progress=on_progress)
            self.paired = pairs.images
            metrics |= pairs.metrics
        if self.retention is not None:
            metrics["same_everyday_word"] = self.retention.measure(self.model)
        return {f"{self.name}/{key}": value for key, value in metrics.items()}, predictions
