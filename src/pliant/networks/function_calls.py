"""The functions of PyTorch that a forward pass calls, whatever modules they are written in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch.overrides import TorchFunctionMode


class FunctionCalls(TorchFunctionMode, ABC):
    """Within this context, every function that is called passes through `call`."""

    @abstractmethod
    def call(self, func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """What the function gives back; `func(*args, **kwargs)` to leave it as it is."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """The protocol of PyTorch, whose keywords may be None."""
        return self.call(func, args, kwargs or {})
