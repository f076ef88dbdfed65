"""Settings and fixtures of the whole suite."""

import os
import shutil
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


@pytest.fixture(scope="module")
def browser():
    """Chromium, or a skip."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip("no browser here: install Chromium (apt-get install chromium)")
    with playwright.sync_playwright() as running:
        # Containers often run as root, where Chromium's own sandbox does not start.
        opened = running.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield opened
        opened.close()
