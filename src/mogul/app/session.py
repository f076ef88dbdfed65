"""Session: a fitted model with its data, or a fit under way, as the pages see it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mogul.app.survey import Survey, survey
from mogul.data import DataSource
from mogul.distributions import Mixture
from mogul.errors import InputError
from mogul.opened import Opened, OpenedDecoder, OpenedNetwork

MOST_ROWS = 60_000  # of data that are looked through, so that a page is ready within seconds


@dataclass
class Live:
    """A fit under way: its history so far, and whether it has ended."""

    name: str
    passes: int
    history: list[dict[str, Any]] = field(default_factory=list)
    ended: bool = False


class Session:
    """What pages are made of: a model opened from its file, its training data, and data to look at.

    Models come from files at rest, without gradients, so that requests may use one side by side.
    Rows come in two sets: "train", what the model was fitted to, and "shown", the data given, or
    else the held-out rows that belong to the training data, or else these. Data that cannot be
    opened any more are missing, with the reason, and the rest goes on without them.

    Args:
        opened: the model; none while a fit is under way.
        data: what to look at.
        live: the fit under way.

    Raises:
        InputError: if the data that were given cannot be opened.
    """

    def __init__(
        self,
        opened: Opened | OpenedDecoder | OpenedNetwork | None = None,
        data: str | None = None,
        live: Live | None = None,
    ) -> None:
        """Open the data.

        Raises:
            InputError: if data were given and cannot be opened.
        """
        self.live = live
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="survey")
        self._surveys: dict[str, Future[Survey]] = {}
        self._kept: dict[str, Future[Any]] = {}
        self._starting = threading.Lock()
        self._opened: Opened | OpenedDecoder | OpenedNetwork | None = None
        self.missing: dict[str, str] = {}
        self.sources: dict[str, DataSource] = {}
        if opened is not None:
            self.open(opened, data)

    def open(self, opened: Opened | OpenedDecoder | OpenedNetwork, data: str | None = None) -> None:
        """Show a model, such as that of a fit that has ended.

        Raises:
            InputError: if data were given and cannot be opened.
        """
        sources, missing = dict[str, DataSource](), dict[str, str]()
        try:
            sources["train"] = opened.train()
        except InputError as error:
            missing["train"] = str(error)
        try:
            sources["shown"] = opened.test(data)
        except InputError as error:
            if data is not None:
                raise
            if "train" in sources:
                sources["shown"] = sources["train"]
            else:
                missing["shown"] = str(error)
        self.sources, self.missing, self._opened = sources, missing, opened

    @property
    def opened(self) -> Opened | OpenedDecoder | OpenedNetwork:
        """The model and the facts kept with it.

        Raises:
            InputError: while a fit is under way.
        """
        if self._opened is None:
            raise InputError("The fit has not ended; the model can be looked at when it has.")
        return self._opened

    @property
    def ready(self) -> bool:
        """Whether there is a model to look at."""
        return self._opened is not None

    @property
    def mixture(self) -> Mixture:
        """The mixture of Gaussians that models the rows.

        Raises:
            InputError: if the model is another.
        """
        if not isinstance(self.opened, Opened):
            raise InputError("This model is no mixture of Gaussians over rows.")
        return self.opened.mixture

    @property
    def decoder(self) -> OpenedDecoder:
        """The model with latents.

        Raises:
            InputError: if the model is another.
        """
        if not isinstance(self.opened, OpenedDecoder):
            raise InputError("This model has no latents and no decoder.")
        return self.opened

    @property
    def network(self) -> OpenedNetwork:
        """The network that predicts targets.

        Raises:
            InputError: if the model is another.
        """
        if not isinstance(self.opened, OpenedNetwork):
            raise InputError("This model predicts no targets from inputs.")
        return self.opened

    def source(self, name: str) -> DataSource:
        """Return the rows of a set, "train" or "shown".

        Raises:
            InputError: if there is no such set, or its data cannot be opened.
        """
        if name in self.sources:
            return self.sources[name]
        raise InputError(
            self.missing.get(name, f"There is no set of rows '{name}'; ask for train or shown.")
        )

    def take(self, name: str, rows: list[int], dtype: torch.dtype | None = None) -> Tensor:
        """Return rows of a set by number, (m, D), as the model wants them, or in another type.

        Raises:
            InputError: if there are no such rows.
        """
        source = self.source(name)
        wrong = [i for i in rows if not 0 <= i < len(source)]
        if wrong:
            raise InputError(
                f"Row {wrong[0]} of {source.name} was asked for, which has {len(source)}; count "
                "from 0."
            )
        like = self.mixture if isinstance(self.opened, Opened) else self.opened.model
        return source.take(rows, like.dtype if dtype is None else dtype, like.device)

    def kept(self, name: str, find: Callable[[], Any]) -> Any:
        """Return what `find` finds: looked for by the first who asks, waited for by others, kept.

        What cannot be found is looked for again when next asked.
        """
        with self._starting:
            known = self._kept.get(name)
            found = known or self._kept.setdefault(name, Future())
        if known is None:
            try:
                found.set_result(find())
            except BaseException as error:
                with self._starting:
                    del self._kept[name]
                found.set_exception(error)
        return found.result()

    def survey(self, name: str) -> Survey:
        """Return what one pass of the mixture over a set of rows finds; made once, then kept.

        Raises:
            InputError: if there is no such set, or the model is no mixture.
        """
        return self._begun(name).result()

    def _begun(self, name: str) -> Future[Survey]:
        source, mixture = self.source(name), self.mixture
        with self._starting:
            for known, found in self._surveys.items():
                if self.sources.get(known) is source:
                    return found
            self._surveys[name] = self._pool.submit(survey, mixture, source, MOST_ROWS)
            return self._surveys[name]
