"""DeFT in the manner of scikit-learn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator

from deft_plugin import Deft, Detection, Detector, FinetuneSettings, InputError, detect
from deft_plugin.data import names_are_numbers


class DeftDetector(BaseEstimator):
    """Detector of wrong labels with `fit`; parameters are those of `deft_plugin.detect`.

    Parameters
    ----------
    class_names : sequence of str of length K, optional
        DeFT reads them. Not needed if `y` has them.
    model, tuning, training, device, batch_size, seed, cache_dir
        See `deft_plugin.detect`.

    Attributes
    ----------
    label_quality_ : np.ndarray of shape (N,), float in [0, 1]
        Low = bad.
    is_label_issue_ : np.ndarray of shape (N,), bool
    predicted_labels_ : np.ndarray of shape (N,)
        Labels that DeFT would give, of the kind of `y`.
    classes_ : np.ndarray of shape (K,)
        Labels of the classes.
    detection_ : Detection
    detector_ : Detector
        What was learned; judges other images.

    Examples
    --------
    >>> DeftDetector(model="ViT-B-16/openai", seed=1)
    DeftDetector(model='ViT-B-16/openai', seed=1)
    """

    label_quality_: np.ndarray
    is_label_issue_: np.ndarray
    predicted_labels_: np.ndarray
    classes_: np.ndarray
    detection_: Detection
    detector_: Detector

    def __init__(
        self,
        *,
        class_names: Sequence[str] | None = None,
        model: str = "bridge-lite0",
        tuning: str = "auto",
        training: FinetuneSettings | None = None,
        device: str = "auto",
        batch_size: int = 64,
        seed: int = 0,
        cache_dir: Path | str | None = None,
    ) -> None:
        self.class_names = class_names
        self.model = model
        self.tuning = tuning
        self.training = training
        self.device = device
        self.batch_size = batch_size
        self.seed = seed
        self.cache_dir = cache_dir

    def fit(self, X: Any, y: Any) -> DeftDetector:
        """Judge the labels of images.

        Parameters
        ----------
        X : sequence of images of length N
            PIL images, paths or arrays; an array of shape (N, H, W, 3) is one, too.
        y : sequence of int or str of length N

        Raises
        ------
        InputError
            As `deft_plugin.detect`.
        """
        deft = Deft()
        detection = detect(
            X,
            y,
            method=deft,
            class_names=self.class_names,
            model=self.model,
            tuning=self.tuning,
            training=self.training,
            device=self.device,
            batch_size=self.batch_size,
            seed=self.seed,
            cache_dir=self.cache_dir,
        )
        assert deft.trained is not None
        self.detection_, self.detector_ = detection, deft.trained
        self.label_quality_ = detection.label_quality
        self.is_label_issue_ = detection.is_label_issue
        names = np.array(detection.class_names)
        if isinstance(np.asarray(y).ravel()[0], str):
            self.classes_ = names
        else:
            are_ids = self.class_names is None and names_are_numbers(detection.class_names)
            self.classes_ = names.astype(int) if are_ids else np.arange(len(names))
        self.predicted_labels_ = self.classes_[detection.predicted_labels]
        return self

    def trust_scores(self, X: Any, y: Any) -> np.ndarray:
        """Fit, and give a score for each label, high = trusted: the label quality (N,)."""
        return self.fit(X, y).label_quality_

    def score_samples(self, X: Any, y: Any) -> np.ndarray:
        """Label quality (N,) of other images, by what was learned.

        Raises
        ------
        sklearn.exceptions.NotFittedError
        InputError
            If a label is of no class that was learned.
        """
        from sklearn.utils.validation import check_is_fitted

        check_is_fitted(self)
        if len(y) == 0:
            raise InputError("Expected at least one image, but got none.")
        settings: dict[str, Any] = {"device": self.device, "batch_size": self.batch_size, "cache_dir": self.cache_dir}
        return self.detector_.score(X, y, **settings).label_quality
