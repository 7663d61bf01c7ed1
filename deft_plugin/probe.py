"""A linear classifier on image features, trained on the noisy labels: what the compared selectors build on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True, kw_only=True)
class ProbeSettings:
    """Settings of the linear classifier; the same for every selector that uses it.

    Attributes
    ----------
    epochs : int
    learning_rate, momentum, weight_decay : float
        SGD with a cosine schedule.
    logit_scale : float
        Factor on features, which have length 1.
    """

    epochs: int = 10
    learning_rate: float = 0.003
    momentum: float = 0.9
    weight_decay: float = 5e-4
    logit_scale: float = 20.0


def minibatch_size(num_examples: int) -> int:
    """Batch size of a training run on features: few examples need small batches to make enough steps.

    Examples
    --------
    >>> minibatch_size(1_000), minibatch_size(50_000)
    (64, 256)
    """
    return min(256, max(64, num_examples // 128))


class LinearProbe:
    """Softmax regression on L2-normalised features by mini-batch SGD.

    Parameters
    ----------
    num_classes : int
    feature_dim : int
    settings : ProbeSettings
    seed : int
    """

    def __init__(self, num_classes: int, feature_dim: int, *, settings: ProbeSettings, seed: int) -> None:
        self.settings = settings
        self.weight = torch.zeros(num_classes, feature_dim, requires_grad=True)
        self._generator = torch.Generator().manual_seed(seed)

    def fit(self, features: np.ndarray, labels: np.ndarray, *, keep_losses: bool = False) -> np.ndarray:
        """Train on features (n, D) and labels (n,).

        Returns
        -------
        np.ndarray of shape (epochs, n)
            Cross-entropy of each example at the end of each epoch; of shape (0, n) without `keep_losses`.
        """
        target = torch.as_tensor(labels)
        batch_size = minibatch_size(len(labels))
        steps = -(-len(labels) // batch_size)
        optimizer = torch.optim.SGD(
            [self.weight],
            lr=self.settings.learning_rate,
            momentum=self.settings.momentum,
            weight_decay=self.settings.weight_decay,
        )
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.settings.epochs * steps)
        losses = [np.empty((0, len(labels)))]
        for _ in range(self.settings.epochs):
            order = torch.randperm(len(labels), generator=self._generator)
            for rows in order.split(batch_size):
                loss = F.cross_entropy(self._logits(features[rows.numpy()]), target[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
            if keep_losses:
                log_p = np.log(np.maximum(self.predict_proba(features), 1e-30))
                losses.append(-log_p[None, np.arange(len(labels)), labels])
        return np.concatenate(losses)

    @torch.no_grad()
    def predict_proba(self, features: np.ndarray) -> np.ndarray:
        """Class probabilities (n, K), float64 rows that sum to 1."""
        pieces = [features[start : start + 4096] for start in range(0, max(1, len(features)), 4096)]
        return torch.cat([self._logits(piece).double().softmax(-1) for piece in pieces]).numpy()

    def _logits(self, features: np.ndarray) -> Tensor:
        return self.settings.logit_scale * torch.from_numpy(np.asarray(features)).float() @ self.weight.T
