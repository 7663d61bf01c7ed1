"""A linear classifier on image features, trained on the noisy labels: what the compared selectors build on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from deft_plugin.compute.pieces import pieces
from deft_plugin.settings import ProbeSettings
from deft_plugin.training.batches import minibatch_size


@dataclass(frozen=True, kw_only=True)
class History:
    """What a classifier said of each label at the end of each training epoch.

    Attributes
    ----------
    losses : np.ndarray of shape (epochs, n), float64
        Cross-entropy of the labels.
    margins : np.ndarray of shape (epochs, n), float64
        Logit of the label minus the largest other logit.
    """

    losses: np.ndarray
    margins: np.ndarray


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

    def fit(
        self, features: np.ndarray, labels: np.ndarray, *, rows: np.ndarray | None = None, keep_history: bool = False
    ) -> History:
        """Train on features (n, D) and labels (n,).

        Parameters
        ----------
        rows : np.ndarray of int, optional
            Train on these only; one that is there twice is trained on twice in an epoch.
        keep_history : bool

        Returns
        -------
        History
            Of all n examples; of no epoch without `keep_history`.
        """
        target = torch.as_tensor(labels)
        chosen = torch.arange(len(labels)) if rows is None else torch.as_tensor(rows)
        batch_size = minibatch_size(len(chosen))
        steps = -(-len(chosen) // batch_size)
        optimizer = torch.optim.SGD(
            [self.weight],
            lr=self.settings.learning_rate,
            momentum=self.settings.momentum,
            weight_decay=self.settings.weight_decay,
        )
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.settings.epochs * steps)
        history = [np.empty((2, 0, len(labels)))]
        for _ in range(self.settings.epochs):
            order = chosen[torch.randperm(len(chosen), generator=self._generator)]
            for batch in order.split(batch_size):
                loss = F.cross_entropy(self._logits(features[batch.numpy()]), target[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
            if keep_history:
                history.append(self._judge(features, target)[:, None])
        losses, margins = np.concatenate(history, axis=1)
        return History(losses=losses, margins=margins)

    @torch.no_grad()
    def predict_proba(self, features: np.ndarray) -> np.ndarray:
        """Class probabilities (n, K), float64 rows that sum to 1."""
        parts = [self._logits(features[piece]).double().softmax(-1) for piece in pieces(len(features))]
        return torch.cat(parts).numpy()

    @torch.no_grad()
    def _judge(self, features: np.ndarray, target: Tensor) -> np.ndarray:
        """Losses and margins (2, n) of labels (n,)."""
        judged: list[Tensor] = []
        for piece in pieces(len(features)):
            logits, label = self._logits(features[piece]).double(), target[piece, None]  # (B, K), (B, 1)
            losses = -logits.log_softmax(-1).gather(1, label)
            margins = logits.gather(1, label) - logits.scatter(1, label, -torch.inf).amax(1, keepdim=True)
            judged.append(torch.cat([losses, margins], dim=1))
        return torch.cat(judged).T.numpy()

    def _logits(self, features: np.ndarray) -> Tensor:
        return self.settings.logit_scale * torch.from_numpy(np.asarray(features)).float() @ self.weight.T
