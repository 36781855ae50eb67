"""Parts of PyTorch and torchvision without the rest of them, which takes 110 MB each and, on a Pi, many seconds."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any, Iterable

if TYPE_CHECKING:
    from torch import Tensor

# Stand-ins, during the import, for modules that the models do not use. One of torchvision's operators needs a function
# of PyTorch's compiler, only to ask whether it could compile.
STAND_INS: dict[str, dict[str, Any]] = {
    "torch._dynamo": {"__path__": []},
    "torch._dynamo.utils": {"is_compile_supported": lambda device_type: False},
    "torchvision.datasets": {},
}


def torchvision_models() -> ModuleType:
    """Return the module torchvision.models.

    The modules that were left out can be imported afterwards. If a version of torchvision needs more from them than the
    stand-ins have, the real ones are imported.
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


class AdamW:
    """The optimizer of Loshchilov and Hutter (2019), for one fit.

    Any optimizer of torch.optim can take its place, but creating one imports PyTorch's compiler: 120 MB and
    several seconds. This class calls the function behind torch.optim.AdamW.
    """

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        import torch
        from torch.optim.adamw import adamw

        self.update = torch.no_grad()(adamw)
        self.parameters = list(parameters)
        self.means = [torch.zeros_like(parameter) for parameter in self.parameters]
        self.variances = [torch.zeros_like(parameter) for parameter in self.parameters]
        self.steps = [torch.zeros((), device=parameter.device) for parameter in self.parameters]
        # One call for all tensors is faster. (torch.__version__ is not plain text: it compares as a version.)
        self.fused = self.parameters[0].is_cuda or torch.__version__ >= "2.4"

    def step(self, learning_rate: float) -> None:
        """Update the model's parameters from their gradients."""
        gradients = [parameter.grad for parameter in self.parameters]
        self.update(
            self.parameters, gradients, self.means, self.variances, [], self.steps, fused=self.fused,
            lr=learning_rate, weight_decay=0.01, beta1=0.9, beta2=0.999, eps=1e-8, amsgrad=False, maximize=False,
        )  # fmt: skip
