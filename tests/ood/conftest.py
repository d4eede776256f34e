"""Detectors of another project, where it is installed."""

import importlib
import importlib.util
import sys
import types

import pytest


@pytest.fixture(scope="session")
def detector(torch):
    """pytorch-ood's detectors, without its data sets and models.

    Those need torchvision, which the package as a whole imports; detectors do not.
    """
    found = importlib.util.find_spec("pytorch_ood")
    if found is None:
        pytest.skip("needs pytorch-ood, which is not installed")
    if "pytorch_ood" not in sys.modules:
        package = types.ModuleType("pytorch_ood")
        package.__path__ = list(found.submodule_search_locations)
        sys.modules["pytorch_ood"] = package
    return importlib.import_module("pytorch_ood.detector")
