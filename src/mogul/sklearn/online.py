"""Learning from batches as they come, for the estimators that EM fits."""

from __future__ import annotations

import copy
from typing import Any, Self

import torch
from sklearn.utils import check_random_state

from mogul.algorithms import OnlineEM, OnlineState
from mogul.models import GaussianMixture as Model
from mogul.protocols import Batch
from mogul.sklearn.base import MixtureEstimator


class OnlineEstimator(MixtureEstimator):
    """An estimator with `partial_fit`, by `mogul.OnlineEM`; memory does not grow with the calls."""

    _online: tuple[Model, OnlineState]  # the model that learns, and what it remembers

    def partial_fit(self, X: Any, y: None = None, sample_weight: Any = None) -> Self:
        """Make one step of online EM with a batch of rows (Cappé & Moulines 2009).

        The first batch also starts the model, so it should hold many rows per component; after
        `fit` the fitted model goes on to learn. What is published are the parameters averaged over
        steps.

        Args:
            X: rows (n_samples, n_features): array, tensor or data frame; NaN means missing.
            y: ignored.
            sample_weight: one weight per row, (n_samples,), or None.

        Returns:
            the estimator.

        Raises:
            ValueError: if the first batch has fewer rows than components, or a later one another
                number of features.
        """
        self._validate_params()
        first = not hasattr(self, "model_")
        x, weight = self._weighted(X, sample_weight, reset=first)
        if first:
            random = check_random_state(self.random_state)
            self._online = self._started(x, weight, random), OnlineState()
        elif not hasattr(self, "_online"):
            self._online = copy.deepcopy(self.model_), OnlineState()
        model, state = self._online
        x = x.to(model.centres)
        rows = Batch(x, None if weight is None else weight.to(x), torch.arange(len(x)))
        algorithm = OnlineEM()
        lesson = algorithm.learn(model, rows, state)
        state.workspaces.clear()
        published = copy.deepcopy(model)
        algorithm.finish(published, state)
        self.model_ = published.requires_grad_(False)
        self.n_iter_, self.lower_bound_ = state.steps, lesson.total / lesson.mass
        self.converged_ = False
        self._publish(self.mixture_)
        return self
