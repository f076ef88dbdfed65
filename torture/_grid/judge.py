"""Whether a result is right, and whether a message is clear."""

from __future__ import annotations

import re
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from sklearn.exceptions import NotFittedError

from mogul import InputError
from torture._grid.exact import Exact, conditioning
from torture._grid.inputs import EITHER, FITS, REFUSED, Input
from torture._grid.subjects import Result, Subject

_OBSCURE = re.compile(
    r"expected scalar type|Cholesky|cholesky|not positive-definite|shape '\[|out of range \(|"
    r"linalg|"
    r"aten::|Expected all tensors|must match the size of tensor|broadcast|dimension specified|"
    r"not implemented for|object has no attribute|unsupported operand|positional arg|"
    r"unexpected keyword|not subscriptable|'NoneType'|DefaultCPUAllocator|"
    r"index \d+ is out of bounds|"
    r"size mismatch|math domain|division by zero|invalid literal|cannot be multiplied|numel",
)
_DOCUMENTED = {
    "estimator": (ValueError, TypeError, NotFittedError),
    "k-means": (ValueError, TypeError, NotFittedError),
    "regressor": (ValueError, TypeError, NotFittedError),
}
_LIMITS = {torch.float64: (1e-6, 1e8), torch.float32: (1e-3, 1e4)}


def expected(case: Input, subject: Subject, dtype: torch.dtype) -> str:
    """Return what must come of an input."""
    algorithm = subject.name.rpartition(" by ")[2]
    rule = case.rules.get(algorithm, case.rules.get(subject.kind, case.expect))
    needs = case.needs
    if "one column" in needs:
        return rule if "one column" in subject.can else REFUSED
    if "gaps" in needs and subject.kind == "network":
        return rule if subject.kind in case.rules else REFUSED
    if "gaps" in needs and subject.kind in case.rules and "gaps" not in subject.can:
        return rule if subject.kind == "regressor" else REFUSED
    if "gaps" in needs and "gaps" not in subject.can:
        return REFUSED
    if "float64" in needs and dtype == torch.float32:
        return EITHER if "float64" in subject.can or rule == EITHER else REFUSED
    if "weights" in needs and "weights" not in subject.can:
        return case.rules.get(subject.kind, REFUSED)
    if "rank" in needs and "rank" not in subject.can:
        return EITHER
    return rule


def applies(case: Input, subject: Subject) -> bool:
    """Whether an input says anything of a subject."""
    if case.only is not None and subject.kind not in case.only:
        return False
    return all(need in subject.can for need in case.needs & {"rank", "factors"})


def tried(case: Input, subject: Subject, dtype: torch.dtype) -> tuple[str, list[str]]:
    """Fit, and return what came of it, "right", "refused" or "failed", with all complaints."""
    wanted = expected(case, subject, dtype)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = subject.run(case, dtype)
    except Exception as error:
        return refusal(error, wanted, subject)
    if wanted == REFUSED:
        return "failed", ["was taken, and must be refused"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        complaints = [*faults(result, case, dtype), *result.complaints]
        if case.twin is not None and subject.same and not complaints:
            complaints += unlike_twin(result, case, subject, dtype)
    return ("failed", complaints) if complaints else ("right", [])


def refusal(error: Exception, wanted: str, subject: Subject) -> tuple[str, list[str]]:
    """Return what to say of an error."""
    told = f"{type(error).__name__}: {error}"
    short = told if len(told) < 240 else told[:240] + "…"
    if not isinstance(error, _DOCUMENTED.get(subject.kind, (InputError,))):
        return "failed", [f"ended with an undocumented {short}"]
    if _OBSCURE.search(str(error)) or len(str(error)) < 30:
        return "failed", [f"ended with an obscure {short}"]
    if wanted == FITS:
        return "failed", [f"should fit, and ended with {short}"]
    return "refused", []


def faults(result: Result, case: Input, dtype: torch.dtype) -> list[str]:
    """Return what is wrong with a result."""
    found = []
    for name, value in result.numbers.items():
        array = as_array(value)
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            found.append(f"{name} is not finite")
    for name, value in result.shares.items():
        array = as_array(value).astype(np.float64)
        rounding = 1e-3 if as_array(value).dtype == np.float32 else 1e-6
        if not (np.isfinite(array).all() and (array >= 0).all()):
            found.append(f"{name} are not finite shares")
        elif array.size and abs(array.sum(-1) - 1).max() > rounding:
            found.append(f"{name} do not sum to one")
    found += fallen(result, dtype)
    for mixture, rows, ways in result.scored:
        found += [*inexact(mixture, rows, ways)]
    return found


def as_array(value: Any) -> np.ndarray:
    """Return a value as an array."""
    return np.asarray(value.detach() if isinstance(value, torch.Tensor) else value)


def fallen(result: Result, dtype: torch.dtype) -> list[str]:
    """Return where a history is not finite, or falls and must not."""
    objectives = [row["objective"] for row in result.history]
    if not np.isfinite(objectives).all():
        return ["the history is not finite"]
    if not result.monotone:
        return []
    slack = 1e-9 if dtype == torch.float64 else 1e-4
    eps = torch.finfo(dtype).eps
    blurs = [blur(m, torch.as_tensor(row), eps) for m, rows, _ in result.scored for row in rows]
    moved = max([0.0, *blurs]) ** 2  # by rounding of the means that an M-step found
    for i in range(1, len(objectives)):
        before = result.history[i - 1]
        allowed = slack * (1 + abs(objectives[i - 1])) + moved
        disturbed = any("restart" in event for event in before["events"])
        if objectives[i] < objectives[i - 1] - allowed and not disturbed:
            return [f"the objective fell from {objectives[i - 1]:.9g} to {objectives[i]:.9g}"]
    return []


def inexact(mixture: Any, rows: Any, ways: dict[str, torch.Tensor]) -> list[str]:
    """Return where scores differ from those in 50 digits."""
    rows = torch.as_tensor(rows)
    rows = rows if rows.is_floating_point() else rows.double()
    exact, dtype = Exact(mixture), mixture.dtype
    limit, most = _LIMITS[dtype]
    condition = conditioning(mixture)
    eps = torch.finfo(dtype).eps
    found = []
    for i, row in enumerate(rows[:3]):
        if bool(row.isinf().any()):
            found += [f"{n} of an infinite row is NaN" for n, v in ways.items() if v[i].isnan()]
            continue
        wanted = exact.log_prob(row.double())
        allowed = limit * max(1.0, condition / most) + 1e3 * eps * abs(wanted)
        allowed += blur(mixture, row, eps) * (1 + float(2 * abs(wanted)) ** 0.5)
        for name, values in ways.items():
            value = float(values[i])
            if value == -np.inf and -wanted > torch.finfo(dtype).max / 4:
                continue
            if not abs(value - wanted) <= allowed:
                found.append(
                    f"{name} of row {i} is {value:.9g}, and {float(wanted):.9g} in 50 digits "
                    f"(condition {condition:.0e})"
                )
                break
    return found[:2]


def comparable(subject: Subject, case: Input) -> bool:
    """Whether EM from the same start must give the same; isotropic noise depends on units."""
    units = case.start is None and any(name in subject.name for name in ("isotropic", "ppca"))
    return subject.kind == "mixture" and subject.name.endswith(" EM") and not units


def blur(mixture: Any, row: torch.Tensor, eps: float) -> float:
    """Return by how many deviations rounding of a row about the origin may move it.

    Means are held as origin + centre: no nearer than this do parameters tell where they are.
    """
    size = row.double().nan_to_num(0.0).abs() + 2 * mixture.origin.double().abs()
    return float(eps * (size.square() / mixture.variances.double()).sum(-1).sqrt().max())


def unlike_twin(result: Result, case: Input, subject: Subject, dtype: torch.dtype) -> list[str]:
    """Return how a fit differs from that of benign data of the same density."""
    assert case.twin is not None
    if case.labels is not None and not comparable(subject, case):
        return []
    labels = None if case.labels is None else case.labels[::-1]
    k = case.k if type(case.k) is int else int(case.k)
    rank = case.rank if type(case.rank) is int else int(case.rank)
    twin = replace(case, data=case.twin, weight=None, twin=None, k=k, rank=rank, labels=labels)
    other = subject.run(twin, dtype)
    if result.mean is None or other.mean is None:
        return []
    apart = abs(result.mean + case.units - other.mean)
    if apart <= (1e-6 if dtype == torch.float64 else 2e-3) * (1 + abs(other.mean)):
        return []
    return [f"reached {result.mean + case.units:.9g} nats, and its twin {other.mean:.9g}"]
