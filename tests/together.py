"""What torchrun runs in tests of fits by several processes: together.py OUT KIND ..."""

import json
import os
import signal
import sys
from pathlib import Path

import torch

from mogul import EM, Checkpoint, GaussianMixture, Gradient, TruncatedEM, fit, initialise, joined
from mogul.algorithms import Variational, pga
from mogul.compute.collective import restarts
from mogul.data import ArraySource
from mogul.models import LatentVariableModel, MLPDecoder, MLPEncoder, VariationalAutoencoder
from mogul.models.autoencoder import PosteriorFamily

torch.set_num_threads(1)
PASSES = 6


def rows():
    generator = torch.Generator().manual_seed(0)
    centres = 3 * torch.randn(4, 5, generator=generator, dtype=torch.float64)
    which = torch.randint(4, (900,), generator=generator)
    return centres[which] + torch.randn(900, 5, generator=generator, dtype=torch.float64)


def mixture(kind):
    plain = ("kill", "gaps", "weights", "gradient", "truncated")
    family = "full" if kind in plain else kind
    if kind in ("few", "kill-few"):
        return GaussianMixture(40, 5, "diagonal", dtype=torch.float64, variance_floor=1e-2)
    rank = 2 if family in ("ppca", "factor-analysis") else None
    return GaussianMixture(4, 5, family, rank, dtype=torch.float64)


def source(kind):
    x = rows()
    if kind == "gaps":
        x[::7, 2] = torch.nan
    weight = torch.arange(900.0).remainder(3) if kind == "weights" else None
    return ArraySource(x, weight)


def fitted(kind, group, out):
    own = source(kind).shard(group)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if kind.endswith("vae"):
            q = PosteriorFamily(2)
            model = VariationalAutoencoder(
                MLPEncoder(q.n_outputs, (5,)), MLPDecoder(2, (5,), (8,)), q, (5,)
            ).double()
            return model, fit(
                model, own, Variational(batch_size=90), passes=PASSES,
                checkpoint=Checkpoint(out / "model.mogul"),
                seen=killer(group) if kind == "kill-vae" else None,
            )  # fmt: skip
        if kind == "decoder":
            model = LatentVariableModel(MLPDecoder(2, (5,), (8,)), 2, (5,)).double()
            algorithm = pga(n_particles=3, batch_size=90, step_size=0.01)
            return model, fit(
                model, own, algorithm, passes=PASSES, checkpoint=Checkpoint(out / "model.mogul")
            )
    model = mixture(kind)
    kept = Checkpoint(out / "model.mogul")
    if not group.said(group.first and kept.held(group.run) is not None):
        initialise(model, own)
    few = TruncatedEM(2, 4, 1, dense=False)
    algorithm = {
        "gradient": Gradient(batch_size=90), "few": few, "kill-few": few,
        "truncated": TruncatedEM(4, 4, 0, dense=False),
    }.get(kind, EM(batch_size=50))  # fmt: skip
    return model, fit(
        model, own, algorithm, passes=PASSES, tolerance=0.0, checkpoint=kept,
        seen=killer(group) if kind.startswith("kill") else None,
    )  # fmt: skip


def killer(group):
    """End the last process by SIGKILL in the middle of its fourth pass, once."""
    count = [0]

    def seen(n):
        count[0] += n
        share = 900 // group.world
        if restarts() == 0 and group.rank == group.world - 1 and count[0] > 3.5 * share:
            os.kill(os.getpid(), signal.SIGKILL)

    return seen


def told(kind, group, out):
    """Make a fit; return what a process tells of it."""
    model, done = fitted(kind, group, out)
    return {
        "history": [row["objective"] for row in done.history],
        "parameters": {k: v.tolist() for k, v in model.state_dict().items()},
        "rows": len(source(kind).shard(group)),
        "restarts": restarts(),
    }


def main():
    with joined() as group:
        for kind in sys.argv[2:]:
            folder = Path(sys.argv[1]) / kind
            folder.mkdir(exist_ok=True)
            found = told(kind, group, folder)
            (folder / f"{group.rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
