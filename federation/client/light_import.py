"""Import torchvision's models without the rest of it, which takes 110 MB and seconds, on a Pi many."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

# What stands in, during the import, for modules that models do not use. One of torchvision's operators wants a function
# of PyTorch's compiler, only to ask whether it could compile.
STAND_INS: dict[str, dict[str, Any]] = {
    "torch._dynamo": {"__path__": []},
    "torch._dynamo.utils": {"is_compile_supported": lambda device_type: False},
    "torchvision.datasets": {},
}


def torchvision_models() -> ModuleType:
    """Return the module torchvision.models.

    The modules that were left out can be imported afterwards. If a version of torchvision wants more of them than the
    stand-ins have, they are imported after all.
    """
    if not sys.modules.keys().isdisjoint(["torchvision", *STAND_INS]):
        return importlib.import_module("torchvision.models")
    for name, attributes in STAND_INS.items():
        sys.modules[name] = ModuleType(name)
        vars(sys.modules[name]).update(attributes)
    try:
        return importlib.import_module("torchvision.models")
    except (ImportError, AttributeError):
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            sys.modules.pop(name)
    finally:
        for name in STAND_INS:
            sys.modules.pop(name, None)
    return importlib.import_module("torchvision.models")
