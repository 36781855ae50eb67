"""Import a module without PyTorch's compiler, which some modules bring along: 100 MB and seconds, on a Pi many."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

COMPILER = "torch._dynamo"


def without_compiler(name: str) -> ModuleType:
    """Import the module `name` and return it.

    torchvision's roi_align wants one function of the compiler, which tells whether compiling is possible. While
    torchvision is imported, a stand-in takes the compiler's place, with that function saying no. Where that is not
    enough, in other versions, the compiler is imported after all; it can be in any case later.
    """
    if COMPILER in sys.modules:
        return importlib.import_module(name)
    package, utils = ModuleType(COMPILER), ModuleType(f"{COMPILER}.utils")
    package.__path__ = []
    utils.is_compile_supported = lambda device_type: False
    known = set(sys.modules)
    sys.modules.update({module.__name__: module for module in (package, utils)})
    try:
        return importlib.import_module(name)
    except (ImportError, AttributeError):
        for half_imported in {n for n in sys.modules if n.partition(".")[0] == name.partition(".")[0]} - known:
            del sys.modules[half_imported]
    finally:
        for module in (package, utils):
            del sys.modules[module.__name__]
    return importlib.import_module(name)
