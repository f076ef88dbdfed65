"""Settings and fixtures of the whole suite."""

import os
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)  # the suite already runs one process per core


@pytest.fixture
def mogul_data() -> Path:
    """The folder of real data sets, or a skip."""
    if "MOGUL_DATA" not in os.environ:
        pytest.skip("MOGUL_DATA is not set: no real data sets here")
    return Path(os.environ["MOGUL_DATA"])
