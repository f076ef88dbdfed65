"""Models in folders and repositories of the Hugging Face Hub."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from mogul.errors import InputError

if TYPE_CHECKING:
    import torch

FILE_NAME = "model.mogul"
_MARKUP = re.compile(r"[^\w\s.,:;=/%'-]|_")
_CARD = """---
{{ card_data }}
---

# {{ about.title }}

A model of mogul, a library of mixtures of Gaussians: `pip install 'mogul[hub]'`. With the name of
this repository, or the path of this folder:

```python
from {{ about.module }} import {{ about.name }}

model = {{ about.name }}.from_pretrained("USER/NAME")
```

All of it is in `model.mogul`, a safetensors file with a SHA-256 of every tensor; loading it runs no
code.

| | |
| --- | --- |
{% for name, value in about.facts -%}
| {{ name }} | {{ value }} |
{% endfor %}"""


class HubModel:
    """What models need of the Hub: `save_pretrained`, `push_to_hub` and `from_pretrained`.

    They are those of huggingface_hub's `ModelHubMixin`, which is imported on first use; weights and
    configuration are a model file (see `save_model`), and a model card tells what it is.
    """

    def save_pretrained(
        self, folder: str | Path, extra: dict[str, Any] | None = None, **options: Any
    ) -> None:
        """Write the model with its card into a folder, as a repository of the Hub holds it.

        Args:
            folder: where to; it is made if it does not exist. A card that is there stays.
            extra: JSON-like facts to keep in the file, such as those that `load_model` returns,
                with which the command line can use the model; their "figures" stand on the card.
                What `mogul fit` keeps names the data and the command.
            options: of `ModelHubMixin.save_pretrained`.

        Raises:
            InputError: if huggingface_hub is not installed, or the model cannot be written.
        """
        held = _held_class().of(self, extra)
        held.save_pretrained(folder, config=held.about(), model_card_kwargs=held.card(), **options)

    def push_to_hub(self, name: str, extra: dict[str, Any] | None = None, **options: Any) -> str:
        """Write the model with its card to a repository of the Hub, which is made if need be.

        Args:
            name: of the repository, "user/name".
            extra: see `save_pretrained`.
            options: of `ModelHubMixin.push_to_hub`: private, token, branch, commit_message, …

        Returns:
            the address of the commit.

        Raises:
            InputError: if huggingface_hub is not installed, or the model cannot be written.
        """
        held = _held_class().of(self, extra)
        return held.push_to_hub(name, config=held.about(), model_card_kwargs=held.card(), **options)

    @classmethod
    def from_pretrained(
        cls, name: str | Path, device: torch.device | str = "cpu", **options: Any
    ) -> Self:
        """Return the model of a repository of the Hub, or of a folder; no code in it is run.

        Args:
            name: "user/name", or the path of a folder.
            device: where to put the parameters.
            options: of `ModelHubMixin.from_pretrained`: revision, token, cache_dir, force_download,
                local_files_only.

        Raises:
            InputError: if huggingface_hub is not installed, there is no model in it, or one of
                another class, or it is damaged.
        """
        model = _held_class().from_pretrained(name, device=device, **options).model
        if not isinstance(model, cls):
            raise InputError(
                f"{name} holds a {type(model).__name__}, which is no {cls.__name__}; load it by "
                f"{type(model).__name__}.from_pretrained."
            )
        return model


@cache
def _held_class() -> Any:
    """Return the class that the Hub's mixin is mixed into: it holds a model, and its facts.

    Raises:
        InputError: if huggingface_hub is not installed.
    """
    try:
        import huggingface_hub
    except ImportError as error:
        raise InputError(
            "Folders and repositories of the Hugging Face Hub need huggingface_hub; install it: "
            "pip install 'mogul[hub]', or keep models in files: save_model, load_model."
        ) from error

    from mogul.models.files import kind_of, load_model, save_model

    class Held(
        huggingface_hub.ModelHubMixin,
        library_name="mogul",
        tags=["density-estimation", "gaussian-mixture"],
        model_card_template=_CARD,
    ):
        """A model and its facts, as the mixin writes and reads them."""

        model: Any
        extra: dict[str, Any]

        def __init__(self) -> None:
            """Take nothing: the mixin would read arguments from config.json."""
            super().__init__()

        @classmethod
        def of(cls, model: Any, extra: dict[str, Any] | None) -> Held:
            """Return what holds a model and its facts."""
            held = cls()
            held.model, held.extra = model, extra or {}
            return held

        def about(self) -> dict[str, Any]:
            """Return what config.json tells; only model.mogul is read."""
            return {"model_type": kind_of(self.model), **self.model.config()}

        def card(self) -> dict[str, Any]:
            """Return what the card tells, escaped."""
            name = type(self.model).__name__
            facts = {**self.about(), "parameters": self.model.n_parameters}
            facts |= self.extra.get("figures", {})
            plain = {k: v for k, v in facts.items() if isinstance(v, str | int | float)}
            about = {
                "title": name,
                "name": name,
                "module": "mogul.models",
                "facts": [(_escaped(k.replace("_", " ")), _escaped(v)) for k, v in plain.items()],
            }
            return {"about": about}

        def _save_pretrained(self, save_directory: Path) -> None:
            save_model(save_directory / FILE_NAME, self.model, self.extra)

        @classmethod
        def _from_pretrained(
            cls,
            *,
            model_id: str,
            device: torch.device | str,
            revision: str | None,
            cache_dir: str | Path | None,
            force_download: bool,
            local_files_only: bool,
            token: str | bool | None,
        ) -> Held:
            path = Path(model_id) / FILE_NAME
            if not Path(model_id).is_dir():
                path = huggingface_hub.hf_hub_download(
                    model_id, FILE_NAME, revision=revision, cache_dir=cache_dir, token=token,
                    force_download=force_download, local_files_only=local_files_only,
                )  # fmt: skip
            return cls.of(*load_model(path, device))

    return Held


def _escaped(value: Any) -> str:
    """Return a value as text in which nothing is markup, on one line."""
    text = f"{value:,.6g}" if isinstance(value, float) else str(value)
    return _MARKUP.sub(lambda found: f"&#{ord(found[0])};", " ".join(text.split()))
