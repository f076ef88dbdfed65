"""Nasty inputs by name, and what is expected of each."""

from __future__ import annotations

import decimal
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse
import torch

FITS, REFUSED, EITHER = "fits", "refused", "fits or refused"
ESTIMATORS = frozenset({"estimator", "k-means", "regressor"})
NETWORKS = frozenset({"network", "regressor", "decoder", "autoencoder"})
MIXTURES = frozenset({"mixture", "bayesian", "estimator"})
WEIGHTED = frozenset({"mixture", "bayesian", "estimator", "network", "regressor", "decoder",
                      "autoencoder"})  # fmt: skip


@dataclass(frozen=True)
class Input:
    """Data as somebody may hand them in, and what must come of it.

    Args:
        name: what it is.
        data: makes the data for a floating-point type.
        expect: whether a fit must give a correct result, must be refused, or may do either.
        rules: what is expected of some kinds of model, or of an algorithm, instead.
        needs: what a model must be able to do: "gaps", "weights", "float64", "rank".
        k: number of components.
        rank: number of factors of low-rank families.
        weight: makes one weight per row.
        query: makes rows that are scored after the fit.
        twin: makes benign data of the same density, up to the factor of a change of units.
        units: the logarithm of that factor, in nats.
        labels: what cluster each row starts in, of the data and of the twin, where the same
            clusters would not be found in both; EM alone is then compared.
        start: makes the rows that both start from; None: each from its own.
        only: the kinds of model that it applies to; None for all.
    """

    name: str
    data: Callable[[type], Any]
    expect: str = FITS
    rules: dict[str, str] = field(default_factory=dict)
    needs: frozenset[str] = frozenset()
    k: Any = 3
    rank: Any = 1
    weight: Callable[[], Any] | None = None
    query: Callable[[torch.dtype], Any] | None = None
    twin: Callable[[type], Any] | None = None
    units: float = 0.0
    labels: tuple[np.ndarray, np.ndarray] | None = None
    start: Callable[[type], Any] | None = None
    only: frozenset[str] | None = None


def base(t: type = np.float64, n: int = 90, d: int = 3, seed: int = 0) -> np.ndarray:
    """Return rows of three clusters that overlap a little."""
    random = np.random.default_rng(seed)
    centres = 4 * random.normal(size=(3, d))
    turned = random.normal(size=(3, d, d)) / d**0.5 + np.eye(d)
    rows = random.normal(size=(n, d))
    return np.stack([centres[i % 3] + turned[i % 3] @ row for i, row in enumerate(rows)]).astype(t)


def changed(change: Callable[[np.ndarray], Any], **shape: int) -> Callable[[type], Any]:
    """Return a maker of the benign rows, changed in float64 before they are cast."""

    def make(t: type) -> Any:
        with np.errstate(over="ignore", under="ignore"):
            found = change(base(**shape))
            return found.astype(t) if found.dtype.kind == "f" else found

    return make


def laid_out(change: Callable[[np.ndarray], Any]) -> Callable[[type], Any]:
    """Return a maker of the benign rows, changed after they are cast."""
    return lambda t: change(base(t))


def put(rows: np.ndarray, where: Any, value: float) -> np.ndarray:
    """Return rows with a value in some places."""
    rows[where] = value
    return rows


def columns(rows: np.ndarray, *made: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Return rows with more columns."""
    return np.column_stack([rows, *(make(rows) for make in made)])


def drawn(make: Callable[[np.random.Generator], np.ndarray]) -> Callable[[type], np.ndarray]:
    """Return a maker of random rows."""
    return lambda t: make(np.random.default_rng(1)).astype(t)


def read_only(rows: np.ndarray) -> np.ndarray:
    """Return rows that must not be written to."""
    rows.flags.writeable = False
    return rows


def fixed(make: Callable[[], Any]) -> Callable[[type], Any]:
    """Return a maker of data that have a type of their own."""
    return lambda t: make()


def whole(rows: np.ndarray) -> np.ndarray:
    """Return rows rounded to small whole numbers, from zero."""
    return np.round(rows - rows.min(0))


def values() -> list[Input]:
    """Return inputs whose values are hard."""
    sd, thirds = base().std(0), np.arange(90) % 3
    gaps = frozenset({"gaps"})
    wide = frozenset({"float64"})
    either = dict.fromkeys(NETWORKS, EITHER)
    spread = either | {"Gradient": EITHER}  # which refuses columns of too unlike units
    random = np.random.default_rng(5)
    spots, plane = random.random((90, 3)), random.normal(size=(2, 5))
    few = {"estimator": EITHER, "k-means": EITHER, "regressor": EITHER}
    return [
        Input("benign", base),
        Input("constant column", changed(lambda x: put(x, (slice(None), 1), 7.0))),
        Input("constant column of zeros", changed(lambda x: put(x, (slice(None), 0), 0.0))),
        Input("constant column at 1e6", changed(lambda x: put(x, (slice(None), 2), 1e6)),
              rules=either),
        Input("two constant columns", changed(lambda x: put(x, (slice(None), [0, 2]), -3.0))),
        Input("constant in one cluster", changed(lambda x: put(x, (slice(0, None, 3), 1), 5.0))),
        Input("all equal", changed(lambda x: put(x, slice(None), 2.5)), REFUSED,
              {**few, **either, "bayesian": REFUSED}),
        Input("all zero", changed(lambda x: put(x, slice(None), 0.0)), REFUSED, {**few, **either}),
        Input("every row ten times", changed(lambda x: x.repeat(10, 0)), twin=base,
              labels=(thirds, thirds), start=base),
        Input("two distinct rows", changed(lambda x: x[:2].repeat(45, 0)), EITHER),
        Input("two distinct rows, k = 2", changed(lambda x: x[:2].repeat(45, 0)), k=2),
        Input("one row differs", changed(lambda x: put(put(x, slice(None), 1.0), 0, 2.0)), EITHER),
        Input("fewer rows than columns", changed(lambda x: x, n=12, d=20)),
        Input("many fewer rows than columns", changed(lambda x: x, n=10, d=60)),
        Input("wide table", changed(lambda x: x, n=40, d=100)),
        Input("more components than rows", changed(lambda x: x[:5]), REFUSED,
              {"regressor": FITS, "network": REFUSED, "decoder": FITS, "autoencoder": FITS}, k=6),
        Input("as many components as rows", changed(lambda x: x[:8]),
              rules={"network": EITHER}, k=8),
        Input("one component", base, k=1),
        Input("twenty components", base, k=20),
        Input("one row", changed(lambda x: x[:1]), REFUSED, {"network": EITHER}, k=1),
        Input("two rows", changed(lambda x: x[:2]), rules=either, k=1),
        Input("two equal rows", changed(lambda x: x[[0, 0]]), REFUSED, {**few, **either}, k=1),
        Input("one column", changed(lambda x: x, d=1), needs=frozenset({"one column"})),
        # A network has one target then, and low rank needs two.
        Input("two columns", changed(lambda x: x, d=2), rules={"network": EITHER}),
        Input("one row, one column", changed(lambda x: x[:1, :1]), REFUSED, k=1),
        Input("some NaN", changed(lambda x: put(x, spots < 0.1, np.nan)), needs=gaps),
        Input("half NaN", changed(lambda x: put(x, spots < 0.5, np.nan)), needs=gaps),
        Input("nine in ten NaN", changed(lambda x: put(x, spots < 0.9, np.nan)),
              rules={"mixture": EITHER, "estimator": EITHER, "decoder": EITHER}, needs=gaps),
        # The second column is a target for a network, and an input for the regressor.
        Input("one NaN", changed(lambda x: put(x, (4, 1), np.nan)), needs=gaps,
              rules={"network": FITS}),
        # A row without a target teaches a network nothing, and is left out.
        Input("a row of NaN only", changed(lambda x: put(x, 3, np.nan)), needs=gaps,
              rules={"network": FITS}),
        Input("a third of rows NaN only", changed(lambda x: put(x, slice(0, None, 3), np.nan)),
              needs=gaps, rules={"network": EITHER}),
        Input("a column of NaN only", changed(lambda x: put(x, (slice(None), 1), np.nan)), REFUSED,
              {"regressor": REFUSED, "network": EITHER, "decoder": EITHER}),
        Input("NaN only", changed(lambda x: put(x, slice(None), np.nan)), REFUSED,
              {"decoder": EITHER}),
        Input("a column NaN in one cluster",
              changed(lambda x: put(x, (slice(0, None, 3), 0), np.nan)), needs=gaps),
        Input("NaN in the last column", changed(lambda x: put(x, (slice(0, 30), 2), np.nan)),
              rules={"network": FITS, "regressor": FITS}, needs=gaps),
        Input("+inf", changed(lambda x: put(x, (4, 1), np.inf)), REFUSED),
        Input("-inf", changed(lambda x: put(x, (89, 2), -np.inf)), REFUSED),
        Input("inf and NaN", changed(lambda x: put(put(x, (4, 1), np.inf), (7, 0), np.nan)),
              REFUSED),
        Input("+inf and -inf", changed(lambda x: put(put(x, (4, 1), np.inf), (4, 2), -np.inf)),
              REFUSED),
        *[
            Input(f"scale {scale:.0e}", changed(lambda x, s=scale: x * s), needs=needs,
                  rules={**either, "estimator": EITHER if needs else FITS,
                         "Gradient": FITS if 1e-5 < scale < 1e5 else EITHER}, twin=base,
                  units=3 * float(np.log(scale)))
            for scale, needs in (
                (1e-30, wide), (1e30, wide), (1e-10, frozenset()), (1e10, frozenset()),
                (1e-100, wide), (1e100, wide), (1e-4, frozenset()), (1e4, frozenset()),
            )
        ],
        Input("scale 1e160", changed(lambda x: x * 1e160), REFUSED, {**either}),
        Input("scale 1e-160", changed(lambda x: x * 1e-160), REFUSED,
              {**either, "estimator": EITHER, "bayesian": REFUSED, "k-means": EITHER}),
        Input("scale 1e307", changed(lambda x: x * 1e307), REFUSED, {**either}),
        Input("subnormal numbers", changed(lambda x: x * 1e-310), REFUSED,
              {**either, "estimator": EITHER, "k-means": EITHER}),
        Input("columns from 1e-8 to 1e8", changed(lambda x: x * [1e-8, 1.0, 1e8]),
              rules=either | {"Gradient": REFUSED}, twin=base, labels=(thirds, thirds)),
        Input("columns from 1e-15 to 1e15", changed(lambda x: x * [1e-15, 1.0, 1e15]),
              rules=either | {"Gradient": REFUSED}, twin=base, labels=(thirds, thirds)),
        Input("origin 1e6 deviations away", changed(lambda x: x + 1e6 * sd), rules=either),
        Input("origin -1e6 deviations away", changed(lambda x: x - 1e6 * sd), rules=either),
        Input("origin 1e9 deviations away", changed(lambda x: x + 1e9 * sd), EITHER),
        Input("origin 1e12 deviations away", changed(lambda x: x + 1e12 * sd), EITHER),
        Input("origin 1e15 deviations away", changed(lambda x: x + 1e15 * sd), EITHER),
        Input("one column 1e12 away", changed(lambda x: x + np.array([0, 1e12, 0])), EITHER),
        Input("clusters 1e6 apart", changed(lambda x: x + 1e6 * (np.arange(90) % 3)[:, None]),
              rules=either),
        Input("clusters 1e12 apart", changed(lambda x: x + 1e12 * (np.arange(90) % 3)[:, None]),
              EITHER),
        Input("clusters 1e6 apart, some NaN",
              changed(lambda x: put(x + 1e6 * (np.arange(90) % 3)[:, None], spots < 0.1, np.nan)),
              rules=either, needs=gaps),
        Input("an outlier at 1e6 deviations", changed(lambda x: put(x, 0, 1e6)), rules=either),
        Input("an outlier at 1e12", changed(lambda x: put(x, 0, 1e12)), rules=spread),
        Input("an outlier in one value", changed(lambda x: put(x, (0, 1), -1e9)), rules=spread),
        Input("outliers to both sides",
              changed(lambda x: put(put(x, slice(0, 5), 1e6), slice(5, 10), -1e6)), rules=either),
        Input("an outlier at 1e30", changed(lambda x: put(x, 0, 1e30)), EITHER),
        Input("a column twice", changed(lambda x: columns(x, lambda y: y[:, 0]))),
        Input("a column and its double", changed(lambda x: columns(x, lambda y: 2 * y[:, 0]))),
        Input("a column is the sum of others",
              changed(lambda x: columns(x, lambda y: y.sum(1)))),
        Input("a column nearly twice",
              changed(lambda x: columns(x, lambda y: y[:, 0] + 1e-8 * y[:, 1]))),
        Input("rows on a line", changed(lambda x: x[:, :1] * [1.0, 2.0, -3.0] + [1, 2, 3])),
        Input("rows on a plane", changed(lambda x: x[:, :2] @ plane)),
        Input("one-hot rows", fixed(lambda: np.eye(4)[np.arange(80) % 4]), rules=either),
        Input("shares that sum to one",
              changed(lambda x: np.exp(x) / np.exp(x).sum(1, keepdims=True))),
        Input("Cauchy", drawn(lambda r: r.standard_cauchy((300, 3))), rules=either),
        Input("Student t, 2 degrees", drawn(lambda r: r.standard_t(2, (300, 3))), rules=either),
        Input("log-normal, sigma 5", drawn(lambda r: np.exp(5 * r.normal(size=(200, 3)))),
              rules=spread),
        Input("Pareto, 1/2", drawn(lambda r: r.pareto(0.5, (200, 3))), rules=spread),
        Input("lattice 0..3", drawn(lambda r: r.integers(0, 4, (120, 3)))),
        Input("zeros and ones", drawn(lambda r: r.integers(0, 2, (120, 4)))),
        Input("rare ones", drawn(lambda r: r.random((200, 3)) < 0.03), EITHER),
        Input("rounded to 0.5", changed(lambda x: np.round(2 * x) / 2)),
        Input("mostly zeros", changed(lambda x: x * (spots < 0.1)), EITHER),
        Input("20,000 rows against 3",
              drawn(lambda r: np.vstack([r.normal(size=(20_000, 3)), 50 + r.normal(size=(3, 3))])),
              k=2, only=MIXTURES | {"k-means"}),
        Input("2,000 rows against 1",
              drawn(lambda r: np.vstack([r.normal(size=(2000, 3)), np.full((1, 3), 40.0)])), k=2),
        Input("sorted rows", changed(lambda x: np.sort(x, 0))),
        Input("alternating signs of zero", changed(lambda x: put(x, (slice(None, None, 2), 0), -0.0)
                                                   )),
        Input("huge and tiny rows", changed(lambda x: x * np.where(np.arange(90) % 2, 1e-6, 1e6
                                                                   )[:, None]), rules=either),
    ]  # fmt: skip


def settings() -> list[Input]:
    """Return numbers of components and factors that are none."""
    wrong_k = [0, -1, 2.5, "3", None, float("nan"), float("inf"), True, [3], 3.0]
    wrong_rank = [0, -1, 3, 7, 1.5, "1", True]
    neural = {"decoder": FITS, "autoencoder": FITS}
    return [
        *[
            Input(f"k = {k!r}", base, REFUSED,
                  {**neural, **dict.fromkeys(ESTIMATORS, EITHER)} if k is True else neural, k=k)
            for k in wrong_k
        ],
        Input("k = np.int64(3)", base, k=np.int64(3), twin=base),
        Input("k = 10**12", base, REFUSED, {**neural, "regressor": FITS}, k=10**12),
        *[
            Input(f"rank = {r!r}", base, REFUSED,
                  {"estimator": EITHER} if r in (3, 7) or r is True else {}, rank=r,
                  needs=frozenset({"rank"}))
            for r in wrong_rank
        ],
        Input("rank = np.int64(1)", base, rank=np.int64(1), needs=frozenset({"rank", "factors"})),
    ]  # fmt: skip


def kinds() -> list[Input]:
    """Return data of every type and layout; rows alike give results alike."""
    lattice = laid_out(whole)
    small = whole(base())
    frame = pd.DataFrame(base(), columns=list("abc"))
    return [
        *[
            Input(f"type {name}", fixed(lambda n=name: small.astype(n)), twin=lattice)
            for name in ("int64", "int32", "int16", "int8", "uint8", "uint16", "uint32", "uint64",
                         "float16", ">f8", ">i4", "longdouble")
        ],
        Input("type bool", fixed(lambda: base() > 0)),
        Input("type bfloat16", fixed(lambda: torch.as_tensor(small).bfloat16()), twin=lattice,
              rules={"regressor": EITHER}),
        Input("integers beyond 2**53", fixed(lambda: small.astype(np.int64) + 2**60), EITHER),
        Input("type object, of numbers", fixed(lambda: small.astype(object)), EITHER),
        Input("type object, of text", fixed(lambda: np.array([["a", 1.0]] * 9, object)), REFUSED),
        Input("decimals", fixed(lambda: np.array([[decimal.Decimal(1), decimal.Decimal(2)]] * 9)),
              EITHER),
        Input("strings", fixed(lambda: np.array([["a", "b"], ["c", "d"]] * 9)), REFUSED),
        Input("strings of numbers", fixed(lambda: small.astype(str)), EITHER),
        Input("bytes", fixed(lambda: small.astype("S")), EITHER),
        Input("complex", fixed(lambda: base() + 1j), REFUSED),
        Input("complex tensor", fixed(lambda: torch.as_tensor(base() + 1j)), REFUSED),
        Input("dates", fixed(lambda: small.astype("datetime64[s]")), REFUSED,
              dict.fromkeys(ESTIMATORS, EITHER)),
        Input("time spans", fixed(lambda: small.astype("timedelta64[s]")), REFUSED,
              dict.fromkeys(ESTIMATORS, EITHER)),
        Input("records", fixed(lambda: np.zeros(9, [("a", "f8"), ("b", "f8")])), REFUSED),
        Input("sparse matrix", fixed(lambda: scipy.sparse.csr_matrix(small)), REFUSED),
        Input("sparse array", fixed(lambda: scipy.sparse.coo_array(small)), REFUSED),
        Input("sparse tensor", fixed(lambda: torch.as_tensor(small).to_sparse()), REFUSED),
        Input("sparse CSR tensor", fixed(lambda: torch.as_tensor(small).to_sparse_csr()), REFUSED),
        Input("masked array", fixed(lambda: np.ma.masked_greater(small, 6.0)), EITHER),
        Input("np.matrix", fixed(lambda: np.asmatrix(small)), EITHER),
        Input("data frame", fixed(lambda: frame), twin=lambda t: base(np.float64)),
        Input("data frame with text", fixed(lambda: frame.assign(d="x")), REFUSED),
        Input("data frame with gaps as objects",
              fixed(lambda: frame.astype(object).where(frame > -9, None)), EITHER),
        Input("nullable integers",
              fixed(lambda: pd.DataFrame(small.astype(int)).astype("Int64")), EITHER),
        Input("list of lists", fixed(lambda: small.tolist()), twin=lattice),
        Input("tuple of tuples", fixed(lambda: tuple(map(tuple, small.tolist()))), EITHER),
        Input("ragged list", fixed(lambda: [[1.0, 2.0], [3.0]] * 5), REFUSED),
        Input("empty list", fixed(list), REFUSED),
        Input("None", fixed(lambda: None), REFUSED),
        Input("a number", fixed(lambda: 3.0), REFUSED),
        Input("a dict", fixed(lambda: {"a": 1.0}), REFUSED),
        Input("0-D", fixed(lambda: np.array(3.0)), REFUSED),
        Input("1-D", laid_out(lambda x: x[:, 0]), REFUSED),
        Input("1-D tensor", laid_out(lambda x: torch.as_tensor(x[:, 0])), REFUSED),
        Input("3-D", laid_out(lambda x: x[:, :, None].repeat(2, 2)), EITHER,
              dict.fromkeys(ESTIMATORS, REFUSED)),
        Input("4-D", laid_out(lambda x: x[:, :, None, None]), EITHER,
              dict.fromkeys(ESTIMATORS, REFUSED)),
        Input("no rows", laid_out(lambda x: x[:0]), REFUSED),
        Input("no columns", laid_out(lambda x: x[:, :0]), REFUSED),
        Input("no rows, no columns", laid_out(lambda x: x[:0, :0]), REFUSED),
        Input("Fortran order", laid_out(np.asfortranarray), twin=base),
        Input("every second row", laid_out(lambda x: x.repeat(2, 0)[::2]), twin=base),
        Input("every second column", laid_out(lambda x: x.repeat(2, 1)[:, ::2]), twin=base),
        Input("reversed rows", laid_out(lambda x: x[::-1]), twin=lambda t: base(t)[::-1].copy()),
        Input("reversed columns", laid_out(lambda x: x[:, ::-1]),
              twin=lambda t: base(t)[:, ::-1].copy()),
        Input("read-only", laid_out(read_only), twin=base),
        Input("a column repeated by stride 0",
              laid_out(lambda x: np.broadcast_to(x[:, :1], x.shape))),
        Input("a row repeated by stride 0", laid_out(lambda x: np.broadcast_to(x[:1], x.shape)),
              REFUSED, dict.fromkeys([*ESTIMATORS, *NETWORKS], EITHER)),
        Input("windows that overlap",
              laid_out(lambda x: np.lib.stride_tricks.sliding_window_view(x.ravel(), 3))),
        Input("tensor", laid_out(torch.as_tensor), twin=base),
        Input("transposed tensor", laid_out(lambda x: torch.as_tensor(x.T.copy()).T), twin=base),
        Input("tensor with gradient",
              laid_out(lambda x: torch.as_tensor(x).requires_grad_()), twin=base),
        Input("meta tensor", laid_out(lambda x: torch.as_tensor(x).to("meta")), REFUSED),
        Input("quantised tensor", fixed(lambda: torch.quantize_per_tensor(
            torch.as_tensor(small).float(), 1.0, 0, torch.quint8)), EITHER),
        Input("more than 2**31 values, equal",
              laid_out(lambda x: np.broadcast_to(x[:1], (2**30, 3))), REFUSED,
              only=frozenset({"mixture"})),
        Input("30,000 equal rows", laid_out(lambda x: np.broadcast_to(x[:1], (30_000, 3))), REFUSED,
              only=frozenset({"mixture"})),
        Input("2**40 columns", laid_out(lambda x: np.broadcast_to(x[:, :1], (90, 2**40))),
              REFUSED, only=frozenset({"mixture"})),
    ]  # fmt: skip


def weights() -> list[Input]:
    """Return weights of rows."""
    need = frozenset({"weights"})
    latent = {"decoder": FITS, "autoencoder": FITS}  # equal ones are none
    steps, thirds = np.arange(90) % 4, np.arange(90) % 3
    every = (np.arange(90) % 4 > 0) * 1.0

    def weighted(name: str, weight: Callable[[], Any], *rest: Any, **more: Any) -> Input:
        return Input(name, more.pop("data", base), *rest, weight=weight, needs=need,
                     only=WEIGHTED, **more)  # fmt: skip

    return [
        weighted("weights of one", lambda: np.ones(90), rules=latent, twin=base),
        weighted("equal weights of 1e30", lambda: np.full(90, 1e30), EITHER, latent),
        weighted("equal weights of 1e-30", lambda: np.full(90, 1e-30), EITHER, latent),
        weighted(
            "whole weights",
            lambda: 1 + steps,
            twin=lambda t: base(t).repeat(1 + steps, 0),
            labels=(thirds, thirds),
            start=base,
        ),
        weighted(
            "weights of zero for a quarter",
            lambda: every,
            twin=lambda t: base(t)[every > 0],
            labels=(thirds, thirds),
            start=base,
        ),
        weighted(
            "weights of zero for rows far away",
            lambda: np.arange(90) >= 10.0,
            data=changed(lambda x: put(x, slice(0, 10), 1e6)),
            rules={"network": EITHER},
        ),
        weighted("weights from 1e-12 to 1e12", lambda: np.logspace(-12, 12, 90), EITHER),
        weighted("all weights zero", lambda: np.zeros(90), REFUSED),
        weighted(
            "one weight only",
            lambda: np.eye(90)[4],
            REFUSED,
            {"network": EITHER, "regressor": EITHER, "estimator": EITHER},
        ),
        weighted("a negative weight", lambda: put(np.ones(90), 3, -1.0), REFUSED),
        weighted("a weight of NaN", lambda: put(np.ones(90), 3, np.nan), REFUSED),
        weighted("a weight of inf", lambda: put(np.ones(90), 3, np.inf), REFUSED),
        weighted("too few weights", lambda: np.ones(89), REFUSED),
        weighted("weights in two columns", lambda: np.ones((90, 2)), REFUSED),
        weighted(
            "weights as text",
            lambda: np.array(["1"] * 90),
            REFUSED,
            dict.fromkeys(ESTIMATORS, EITHER),
        ),
    ]


def queries() -> list[Input]:
    """Return rows that are scored after a benign fit."""

    def asked(name: str, query: Callable[[torch.dtype], Any], *rest: Any, **more: Any) -> Input:
        return Input(f"query: {name}", base, *rest, query=query,
                     only=MIXTURES | {"k-means"}, **more)  # fmt: skip

    def full(value: float) -> Callable[[torch.dtype], torch.Tensor]:
        return lambda t: torch.full((2, 3), value, dtype=t)

    return [
        asked("at 1e200", lambda t: torch.full((2, 3), 1e200, dtype=torch.float64), EITHER),
        asked("at 1e150", lambda t: torch.full((2, 3), 1e150, dtype=torch.float64), EITHER),
        asked("at 1e30", full(1e30), EITHER),
        asked("at 1e15", full(1e15)),
        asked("at 1e6", full(1e6)),
        asked("at -1e3", full(-1e3)),
        asked("at inf", full(float("inf")), EITHER, {"estimator": REFUSED, "k-means": REFUSED}),
        asked("NaN only", full(float("nan")), FITS, {"estimator": EITHER, "k-means": REFUSED}),
        asked(
            "a gap",
            lambda t: torch.tensor([[float("nan"), 1.0, 2.0]], dtype=t),
            FITS,
            {"estimator": EITHER, "k-means": REFUSED},
        ),
        asked("too wide", lambda t: torch.zeros(2, 4, dtype=t), REFUSED),
        asked("too narrow", lambda t: torch.zeros(2, 2, dtype=t), REFUSED),
        asked("0-D", lambda t: torch.tensor(1.0, dtype=t), REFUSED),
        asked(
            "no rows",
            lambda t: torch.zeros(0, 3, dtype=t),
            FITS,
            {"estimator": REFUSED, "k-means": REFUSED},
        ),
        asked("float16", lambda t: torch.ones(2, 3, dtype=torch.float16)),
        asked("integers", lambda t: torch.ones(2, 3, dtype=torch.int64)),
        asked("bool", lambda t: torch.ones(2, 3, dtype=torch.bool)),
        asked("complex", lambda t: torch.ones(2, 3, dtype=torch.complex64), REFUSED),
        asked("array", lambda t: np.ones((2, 3)), REFUSED, {"estimator": FITS, "k-means": FITS}),
        asked("strings", lambda t: np.array([["a", "b", "c"]]), REFUSED),
        asked("None", lambda t: None, REFUSED),
    ]


def inputs() -> list[Input]:
    """Return all inputs."""
    return [*values(), *settings(), *kinds(), *weights(), *queries()]
