"""A plugin as others would write it: a selector, and a data set."""

import numpy as np

from deft_plugin import Run, Selection, SelectorTraits, hookimpl


class NearestMean:
    """Keeps a label if the image is nearest to the mean feature of that class."""

    def select(self, run: Run) -> Selection:
        features = run.image_features.astype(np.float32)
        means = np.stack([features[run.labels == k].mean(0) for k in range(run.num_classes)])
        scores = features @ (means / np.linalg.norm(means, axis=1, keepdims=True)).T
        rows, nearest = np.arange(len(scores)), scores.argmax(1)
        quality = 1 / (1 + np.exp(10 * (scores.max(1) - scores[rows, run.labels])))
        return Selection(is_clean=nearest == run.labels, label_quality=2 * quality, predicted_labels=nearest)


def load_dots():
    """60 pictures of one colour each, red or blue."""
    import datasets

    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    images = np.clip(
        np.array([(220, 40, 40), (40, 40, 220)])[labels][:, None, None] + rng.normal(0, 30, (60, 32, 32, 3)), 0, 255
    )
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["red", "blue"]))
    return datasets.Dataset.from_dict({"image": list(images.astype(np.uint8)), "label": labels}, features=features)


@hookimpl
def register_selectors(register):
    register(
        "nearest_mean",
        NearestMean,
        summary="nearest class mean equals the label",
        traits=SelectorTraits(consumes=("features",)),
    )


@hookimpl
def register_datasets(register):
    register("dots", load_dots, summary="60 pictures, red or blue")
