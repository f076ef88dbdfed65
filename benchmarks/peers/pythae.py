"""Claims about pythae."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.peers.claims import FULL, NO, PARTLY, UNCHECKED, Claim, Library, expect, no_commands

X = torch.rand(100, 1, 4, 4, generator=torch.Generator().manual_seed(0))


def made(name: str = "VAE", **options: Any) -> Any:
    """Return a small autoencoder."""
    import pythae.models

    config = getattr(pythae.models, f"{name}Config")
    return getattr(pythae.models, name)(config(input_dim=(1, 4, 4), latent_dim=2, **options))


def vamp() -> str:
    """Send gradients to pseudo-inputs."""
    model = made("VAMP", number_components=5)
    model({"data": X}, epoch=1).loss.backward()
    found = float(model.pseudo_inputs[0].weight.grad.abs().sum()) > 0
    return expect(found, True, "VAMP learns its 5 pseudo-inputs")


def others() -> str:
    """Count the models that the package offers."""
    import pythae.models

    n = sum(name.endswith("Config") for name in pythae.models.__all__) - 1  # the base's
    loss = float(made("BetaTCVAE")({"data": X}, dataset_size=100, epoch=1).loss.detach())
    return f"{n} kinds of autoencoder by their configurations; loss of BetaTCVAE {loss:.3f}"


def flows() -> str:
    """Score under an autoregressive flow."""
    from pythae.models.normalizing_flows import MAF, MAFConfig

    flow = MAF(MAFConfig(input_dim=(16,)))
    return f"MAF gives log-determinants {tuple(flow(X.reshape(100, 16)).log_abs_det_jac.shape)}"


def trained(folder: str) -> Any:
    """Train for two epochs."""
    import contextlib
    import io
    import logging

    from pythae.data.datasets import BaseDataset
    from pythae.trainers import BaseTrainer, BaseTrainerConfig

    logging.getLogger("pythae").setLevel(logging.ERROR)
    torch.manual_seed(1)
    model = made()
    config = BaseTrainerConfig(output_dir=folder, num_epochs=2, no_cuda=True)
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        BaseTrainer(model, BaseDataset(X, torch.zeros(100)), training_config=config).train()
    return model


def seed() -> str:
    """See whether the trainer touches torch's generator."""
    with tempfile.TemporaryDirectory() as folder:
        first = trained(folder).state_dict()
        second = trained(folder).state_dict()
    same = all(torch.equal(first[name], second[name]) for name in first)
    return expect(
        same, True, "same bits under torch.manual_seed and the trainer's seed, which are global"
    )


def files() -> str:
    """Look at what it saves, and open it without code."""
    with tempfile.TemporaryDirectory() as folder:
        made().save(folder)
        names = sorted(path.name for path in Path(folder).iterdir())
        torch.load(Path(folder) / "model.pt", weights_only=True)
    return f"save writes {', '.join(names)}; model.pt opens with weights_only=True"


def latents() -> str:
    """Name the sampler that fits a mixture to latents."""
    from pythae.samplers import GaussianMixtureSampler

    return f"{GaussianMixtureSampler.__name__}: scikit-learn's mixture, on latents after training"


LIBRARY = Library(
    "pythae",
    "pythae",
    "pythae",
    {
        "simple": Claim(
            PARTLY, latents, "scikit-learn's mixture, fitted to latents after training"
        ),
        "gradient": Claim(FULL, vamp),
        "memory": Claim(
            FULL, "0.1.2, README: training takes any torch Dataset that gives DatasetOutput"
        ),
        "processes": Claim(FULL, "0.1.2, README, Distributed training with Pythae"),
        "gpu": Claim(FULL, "0.1.2, README, Distributed training with Pythae"),
        "seed": Claim(PARTLY, seed, "`seed` sets the global generators"),
        "far": Claim(UNCHECKED, "its autoencoders take pixels"),
        "resume": Claim(
            PARTLY,
            "0.1.2, training pipeline: optimisers and schedulers are saved with checkpoints",
            "checkpoints hold the optimiser; going on is yours",
        ),
        "cli": Claim(NO, lambda: no_commands("pythae")),
        "vae": Claim(FULL, vamp, "VampPrior; a mixture is fitted after training"),
        "vaes": Claim(FULL, others),
        "flows": Claim(PARTLY, flows, "MAF and IAF, for posteriors and for samples"),
        "files": Claim(PARTLY, files, "with default networks; networks of your own are pickled"),
    },
)
