"""Modules that other people's packages import and the tests never call."""

import contextlib
import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import Iterator
from unittest import mock


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Everything below one top-level name, as objects that take any attribute."""

    def __init__(self, package: str) -> None:
        self.package = package

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] != self.package:
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec) -> types.ModuleType:
        return mock.MagicMock(__name__=spec.name, __path__=[], __spec__=spec)

    def exec_module(self, module) -> None:
        pass


@contextlib.contextmanager
def stand_in(package: str) -> Iterator[None]:
    """Lets others import `package` inside the block, whether it is there or broken.

    torchvision, for one, refuses a PyTorch that it wasn't built with; detectors and
    networks only name it beside them.
    """
    before = set(sys.modules)
    finder = _Finder(package)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in set(sys.modules) - before:
            if name.partition(".")[0] == package:
                del sys.modules[name]
