"""Inference runtimes by name: ONNX Runtime, OpenVINO, PyTorch and LiteRT.

To add one, write a file with a subclass of `Runtime` and name it in `RUNTIMES`; it must then pass
`tests/conformance/test_runtimes.py`. No runtime is imported before it is used.
"""

from __future__ import annotations

from collections.abc import Mapping

from pliant.devices.runtimes.litert import LiteRt
from pliant.devices.runtimes.onnxruntime import OnnxRuntime
from pliant.devices.runtimes.openvino import OpenVino
from pliant.devices.runtimes.pytorch import CompiledPyTorch, EagerPyTorch
from pliant.devices.runtimes.runtime import Runtime
from pliant.errors import RecipeError, nearest

RUNTIMES: Mapping[str, Runtime] = {
    one.name: one
    for one in (OnnxRuntime(), OpenVino(), EagerPyTorch(), CompiledPyTorch(), LiteRt())
}
"""By name, the default one first."""


def runtime_named(name: str) -> Runtime:
    """The runtime of a name.

    Raises:
        RecipeError: there is none of that name.
    """
    if name not in RUNTIMES:
        raise RecipeError(
            f"a runtime is one of {', '.join(RUNTIMES)}, received {name!r}. "
            f"{nearest(name, RUNTIMES)}"
        )
    return RUNTIMES[name]
