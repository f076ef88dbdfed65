"""Claims about torch-mfa, which is no package to install: by its README and its example scripts."""

from __future__ import annotations

from benchmarks.peers.claims import FULL, PARTLY, UNCHECKED, Claim, Library

LIBRARY = Library(
    "torch-mfa",
    "mfa",
    "torch-mfa",
    {
        "ppca": Claim(FULL, "README: EM for MPPCA"),
        "mfa": Claim(
            PARTLY, "README: only by SGD after EM for MPPCA", "by gradient, after EM for PPCA"
        ),
        "em": Claim(FULL, "README: main training method is EM"),
        "online": Claim(
            PARTLY, "mfa.py: batch_incremental_fit, in versions of it", "in versions of `mfa.py`"
        ),
        "far": Claim(UNCHECKED, "it is no package to install, and was not run"),
        "gradient": Claim(PARTLY, "train.py: sgd_mfa_train", "its own training by gradient"),
        "impute": Claim(
            PARTLY, "inference.py: conditional_reconstruct", "reconstructions, without variances"
        ),
        "memory": Claim(FULL, "train.py: batch_fit reads a torch Dataset"),
        "gpu": Claim(FULL, "train.py: cuda if available"),
        "inpaint": Claim(FULL, "README, Inference: in-painting of the right half of faces"),
        "outliers": Claim(
            PARTLY, "inference.py: rows sorted by log_prob", "rows ranked by likelihood"
        ),
        "files": Claim(
            PARTLY,
            "train.py: torch.save of a state_dict",
            "parameters alone, put into a model that your code builds",
        ),
    },
)
