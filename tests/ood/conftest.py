"""Detectors of another project, where it is installed."""

import importlib

import pytest

from tests.stand_in import stand_in


@pytest.fixture(scope="session")
def detector(torch):
    """pytorch-ood's detectors."""
    with stand_in("torchvision"):
        pytest.importorskip("pytorch_ood", reason="needs pytorch-ood")
        return importlib.import_module("pytorch_ood.detector")
