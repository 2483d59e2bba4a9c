"""The over-parameterised network of ProxylessNAS: every operation of every block, one path a step.

H. Cai, L. Zhu, S. Han, "ProxylessNAS: Direct Neural Architecture Search on Target Task and
Hardware", 2019, arXiv:1812.00332, section 3. A mixed block holds all its operations with weights of
their own, and architecture parameters alpha whose softmax gives the probability of each. A binary
gate lets one operation run; the gradient of alpha goes through the gates.

    y = sum_j g_j o_j(x),   g one-hot        (eq. 3)
    dL/dg_j = <dL/dy, o_j(x)>
    dL/dalpha_i = sum_j dL/dg_j p_j (delta_ij - p_i)        (eq. 4)

The last line is the gradient of the softmax. So the gates are p in the backward pass and one-hot in
the forward pass, and autograd does the rest. Leaving the block out is an operation like the others:
o(x) = x.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pliant.errors import EncodingError, RecipeError
from pliant.networks.initialization import initialise
from pliant.networks.supernet import Supernet
from pliant.spaces.architecture import Architecture, Option
from pliant.spaces.block import Block
from pliant.spaces.space import Choice, Space

ALPHA_DEVIATION = 1e-3
"""Of the architecture parameters at the start, as in the paper's code."""


@dataclass(frozen=True, slots=True)
class MixedBlock:
    """One block with a choice of operations."""

    choice: Choice
    slot: str
    operations: tuple[Block | None, ...]
    """By option; None leaves the block out."""


@dataclass(frozen=True, slots=True)
class Gate:
    """What runs in a mixed block during one step of the architecture parameters."""

    operations: Sequence[int]
    """That take part in the gradient: two, or all."""
    active: int
    """The one that runs, a position in `operations`."""


def mixed_blocks(space: Space) -> tuple[MixedBlock, ...]:
    """The blocks with a choice of operations, in the order of the choices.

    Raises:
        RecipeError: a choice decides another number of blocks than one, or two choices decide the
            same, so that the operations of a block are not the options of a choice.
    """
    found = []
    for choice in space.choices:
        if len(choice.options) == 1:
            continue
        versions: list[set[tuple[Block | None, ...]]] = []
        slots: set[str] = set()
        for base in (space.largest(), space.smallest()):
            by_option = [_by_slot(space, base, choice, option) for option in choice.options]
            own = {
                slot
                for layout in by_option
                for slot in layout
                if any(other.get(slot) != layout[slot] for other in by_option)
            }
            slots |= own
            versions.append({tuple(layout.get(slot) for layout in by_option) for slot in own})
        if len(slots) != 1 or versions[0] != versions[1]:
            raise RecipeError(
                f"a mixed network chooses the operation of each block by one choice; {choice.name} "
                f"of space {space.name!r} decides {_some(sorted(slots))} together with other "
                "choices. Use a space such as proxyless-32."
            )
        [operations], [slot] = versions[0], slots
        found.append(MixedBlock(choice, slot, operations))
    if not found:
        raise RecipeError(f"a mixed network has choices, space {space.name!r} has none.")
    return tuple(found)


def _some(slots: Sequence[str]) -> str:
    """The first three, and how many there are."""
    few = ", ".join(slots[:3]) or "no block"
    return few if len(slots) <= 3 else f"{few} and {len(slots) - 3} more blocks"


def _by_slot(space: Space, base: Architecture, choice: Choice, option: Option) -> dict[str, Block]:
    changed = space.architecture({**space.largest().mapping, **base.mapping, choice.name: option})
    return {block.slot: block for block in space.blocks(changed)}


class MixedNetwork(Supernet):
    """Weights of every operation of every block, and the architecture parameters.

    Args:
        space: in which every choice picks the operation of one block.
        mean, std: of the training images by channel, pixels from 0 to 1.

    Raises:
        RecipeError: the space has other choices.
    """

    chosen: Tensor

    def __init__(self, space: Space, *, mean: Sequence[float], std: Sequence[float]) -> None:
        self._mixed = mixed_blocks(space)
        self._keys = {
            block: f"{mixed.slot}_{option}"
            for mixed in self._mixed
            for option, block in zip(mixed.choice.options, mixed.operations, strict=True)
            if block is not None
        }
        super().__init__(space, mean=mean, std=std)
        self.alpha = nn.ParameterDict(
            {
                mixed.slot: nn.Parameter(ALPHA_DEVIATION * torch.randn(len(mixed.operations)))
                for mixed in self._mixed
            }
        )
        self.register_buffer("chosen", torch.full((len(space.choices),), -1))

    @property
    def mixed(self) -> tuple[MixedBlock, ...]:
        """The blocks with a choice of operations."""
        return self._mixed

    def _key(self, block: Block) -> str:
        return self._keys.get(block, block.slot)

    def weight_holders(self) -> Mapping[str, Block]:
        """Every operation of every block has weights of its own."""
        found = {}
        for block in self.space.blocks(self.space.largest()):
            here = [one.operations for one in self._mixed if one.slot == block.slot]
            for operation in here[0] if here else (block,):
                if operation is not None:
                    found[self._key(operation)] = operation
        return found

    def module_of(self, block: Block) -> Any:
        """The module of one operation."""
        return self.blocks[self._key(block)]

    @property
    def trained(self) -> tuple[Architecture, ...]:
        """The network that was chosen; none before the end of the search."""
        if bool((self.chosen < 0).any()):
            return ()
        return (self.space.decode(self.chosen.tolist()),)

    def choose(self, architecture: Architecture) -> None:
        """Keep the result of the search, and give it fresh weights for its training."""
        self.chosen.copy_(torch.from_numpy(self.space.encode(architecture)))
        for block in self.space.blocks(architecture):
            if self._key(block) != block.slot:
                initialise(self.module_of(block))

    def probabilities(self) -> dict[str, Tensor]:
        """Softmax of the architecture parameters, (operations,), by slot."""
        return {slot: alpha.softmax(0) for slot, alpha in self.alpha.items()}

    def forward(
        self,
        images: Tensor,
        architecture: Architecture | None = None,
        *,
        dropout: bool = False,
        gates: Mapping[str, Gate] | None = None,
    ) -> Tensor:
        """Logits of a network, or of the path that gates let run.

        Args:
            images: (N, channels, size, size) pixels from 0 to 1.
            architecture: the network; not asked for with gates.
            dropout: whether the classifier's is on.
            gates: by slot of the mixed blocks.

        Returns:
            (N, classes).
        """
        if gates is not None:
            return self._gated(images, gates)
        assert architecture is not None
        return super().forward(images, architecture, dropout=dropout)

    def _gated(self, images: Tensor, gates: Mapping[str, Gate]) -> Tensor:
        """Logits of the path that the gates let run; differentiable in alpha through the gates.

        The softmax is over the operations that take part (section 3.2.1: two of them, which keeps
        the memory of one path).
        """
        mixed = {one.slot: one for one in self._mixed}
        x = images
        for block in self.space.blocks(self.space.largest()):
            if block.slot not in mixed:
                x = self._run(block, x, dropout=False)
                continue
            gate = gates[block.slot]
            operations = mixed[block.slot].operations
            runs = [self._operation(operations[index]) for index in gate.operations]
            y = runs[gate.active](x)
            p = self.alpha[block.slot][list(gate.operations)].softmax(0)
            x = _Gated.apply(y, x, p, runs, gate.active)
        return x

    def _operation(self, block: Block | None) -> Callable[[Tensor], Tensor]:
        if block is None:
            return nn.Identity()
        return lambda x: self._run(block, x, dropout=False)

    def sort_channels(
        self, trained: Sequence[Architecture] = (), images: Tensor | None = None
    ) -> None:
        """Refused: the operations of a mixed network share no channels.

        Raises:
            EncodingError: always.
        """
        raise EncodingError("a mixed network has no channels to sort: operations share no weights.")


class _Gated(torch.autograd.Function):
    """One operation forward, the gradients of all gates backward.

    The other operations run in the backward pass, without a graph, so that one path is in memory.
    """

    @staticmethod
    def forward(
        ctx: Any,
        y: Tensor,
        x: Tensor,
        p: Tensor,
        runs: Sequence[Callable[[Tensor], Tensor]],
        active: int,
    ) -> Tensor:
        ctx.save_for_backward(y, x)
        ctx.runs, ctx.active = runs, active
        device = x.device.type
        ctx.autocast = (
            device,
            torch.get_autocast_dtype(device),
            torch.is_autocast_enabled(device),
        )
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, Tensor, None, None]:
        y, x = ctx.saved_tensors
        device, dtype, enabled = ctx.autocast
        of_gates, precise = [], torch.promote_types(gradient.dtype, torch.float32)
        with torch.no_grad(), torch.autocast(device, dtype, enabled=enabled):
            for index, run in enumerate(ctx.runs):
                out = y if index == ctx.active else run(x)
                of_gates.append((gradient.to(precise) * out.to(precise)).sum())
        return gradient, None, torch.stack(of_gates), None, None
