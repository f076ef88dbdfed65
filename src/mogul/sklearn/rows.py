"""Rows as estimators take them and give them back."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import validate_data
from torch import Tensor

from mogul.data.sources import check_array


def checked_rows(estimator: Any, X: Any, reset: bool, gaps: bool = False) -> Tensor:
    """Return X as a float tensor on its device, checked as scikit-learn checks.

    Args:
        estimator: which one takes the rows.
        X: rows (n_samples, n_features): array, tensor or data frame.
        reset: whether the estimator is being fitted, and so learns the number of features.
        gaps: whether NaN is allowed.

    Raises:
        InputError: for a tensor that holds no rows of real numbers.
    """
    device: Any = "cpu"
    array: Any = X
    if isinstance(X, Tensor):
        check_array(X, "X")
        device, kept = X.device, X.detach().cpu()
        array = (kept.float() if kept.dtype == torch.bfloat16 else kept).numpy()
    checked: Any = validate_data(
        estimator, array, reset=reset, dtype=[np.float64, np.float32],
        ensure_all_finite="allow-nan" if gaps else True,
        ensure_min_samples=2 if reset else 1,
    )  # fmt: skip
    native = np.array(checked, dtype=checked.dtype.newbyteorder("="))
    return torch.as_tensor(native, device=device)


def like(X: Any, result: Tensor) -> Any:
    """Return a tensor for a tensor, and an array for anything else."""
    return result if isinstance(X, Tensor) else result.cpu().numpy()
