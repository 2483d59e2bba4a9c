"""A supernet of a network of the user's own: its parameters, and any of its sub-networks.

Weights are sliced as views where they are one piece, nothing is masked, and the forward pass is a
function of the input, the parameters and the sizes. Channels are sorted by importance, so that the
first ones are those that are kept (Cai, H. et al., Once-for-All, 2020, arXiv:1908.09791, section
3.3). Heads and the widths of transformers are sliced as by Chen, M., Peng, H., Fu, J., Ling, H.,
AutoFormer: Searching Transformers for Visual Recognition, 2021, arXiv:2107.00651.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from pliant.errors import ForeignError, nearest
from pliant.networks import plain
from pliant.networks.depthwise import fast_conv
from pliant.networks.elastic import kernel_matrices
from pliant.networks.foreign.choices import Choices, elastic_choices
from pliant.networks.foreign.dimensions import Group, groups_of, pieces_of
from pliant.networks.foreign.extraction import plain_module
from pliant.networks.foreign.graph import ForeignGraph, evaluation
from pliant.networks.foreign.plan import Plan, Step, filled
from pliant.networks.foreign.workloads import describe_layers
from pliant.networks.morph.check import copied
from pliant.networks.statistics import BATCH_NORMS
from pliant.networks.supernet import Supernet
from pliant.plugins import is_plugin, plugin_name
from pliant.spaces.architecture import Architecture
from pliant.spaces.foreign import ForeignDescription, ForeignSpace

PLANS = 256
"""Plans of architectures that are kept."""
TOLERANCE = 1e-5
"""Largest difference to the network of the user, over its largest output."""
CHECKED_IMAGES = 2


class ForeignSupernet(Supernet):
    """The shared weights of a network and its sub-networks.

    Parameters and buffers have the names and shapes that they have in the module; convolutions
    whose kernels may be smaller have matrices beside them, see `networks.elastic`. Without an
    architecture the whole network runs, in evaluation mode by its running statistics; sub-networks
    run by batch statistics until they are extracted and calibrated.

    Args:
        module: whose tensors become those of the supernet.
        graph: of the module.
        choices: of the graph.
        space: made of the choices.
    """

    def __init__(
        self, module: nn.Module, graph: ForeignGraph, choices: Choices, space: ForeignSpace
    ) -> None:
        nn.Module.__init__(self)
        self.space: ForeignSpace = space
        self.pixel_mean: Sequence[float] = ()
        self.pixel_std: Sequence[float] = ()
        self.replaced: tuple[str, ...] = ()
        """Layers of the classifier that are fresh, since the images have other classes."""
        self.parts = Parts(graph, choices)
        self._holders: dict[str, tuple[dict[str, Any], str]] = {}
        """Where tensors are, by name: a module is looked up once, not in every step."""
        _place_tensors(self, module, graph)

    def forward(
        self, images: Tensor, architecture: Architecture | None = None, *, dropout: bool = False
    ) -> Tensor:
        """Logits of a sub-network; of the network as it is where None.

        Args:
            images: (N, channels, size, size), as the module takes them; pixels from 0 to 1 where
                the space preprocesses them.
            architecture: of the space; runs by batch statistics. While training, those of the
                largest one are kept as running statistics.
            dropout: whether dropout layers drop while the supernet is in training mode.
        """
        chosen = architecture or self.space.largest()
        whole = chosen == self.space.largest() and (self.training or architecture is None)
        plan, tensors = self.parts.plan(chosen), self._tensor
        run = functools.partial(self._run_step, whole=whole, dropout=dropout)
        return run_plan(plan, tensors, self._prepared(images, chosen), run)

    def _prepared(self, images: Tensor, architecture: Architecture) -> Tensor:
        """Pixels normalised and resized, where the space does so."""
        if self.pixel_mean:
            mean = images.new_tensor(self.pixel_mean)[:, None, None]
            images = (images - mean) / images.new_tensor(self.pixel_std)[:, None, None]
        chosen = architecture.mapping
        return plain.resize(images, int(chosen["r"])) if "r" in chosen else images

    def _run_step(self, step: Step, args: Any, kwargs: Any, *, whole: bool, dropout: bool) -> Any:
        name = step.name
        if name == "batch_norm" and (self.training or not whole):
            x, weight, bias, mean, variance, _, momentum, epsilon = args[:8]
            if not whole:
                mean = variance = None
            return F.batch_norm(x, mean, variance, weight, bias, True, momentum, epsilon)
        if name == "conv2d" and torch.is_grad_enabled():
            return fast_conv(*args)
        if name in ("dropout", "dropout_") and dropout and self.training:
            return F.dropout(args[0], args[1], True)
        return step.target(*args, **kwargs)

    def _tensor(self, name: str) -> Tensor:
        if name not in self._holders:
            path, _, attribute = name.rpartition(".")
            owner = self.get_submodule(path)
            holder = owner._parameters if attribute in owner._parameters else owner._buffers
            self._holders[name] = holder, attribute
        holder, attribute = self._holders[name]
        return cast(Tensor, holder[attribute])

    def extract(self, architecture: Architecture) -> plain.Network:
        """The sub-network as plain PyTorch layers of its own.

        Its BatchNorm statistics are unknown until it is calibrated.
        """
        network = self._plain(architecture)
        forget_statistics(network)
        return network

    def frozen(self) -> plain.Network:
        """The whole network as plain PyTorch layers of its own, with its running statistics.

        They are unknown where a BatchNorm has seen no images yet.
        """
        network = self._plain(self.space.largest())
        if any(_has_seen_nothing(module) for module in network.modules()):
            forget_statistics(network)
        return network.eval()

    def _plain(self, architecture: Architecture) -> plain.Network:
        options = architecture.mapping
        resolution = int(options["r"]) if "r" in options else None
        network = plain_module(
            self.parts.plan(architecture), self._tensor, self.pixel_mean, self.pixel_std, resolution
        )
        return cast(plain.Network, network.to(next(self.parameters()).device))

    # What training strategies ask for.

    @property
    def head_module(self) -> nn.Module:
        """What holds the parameters of the last layer."""
        return self.get_submodule(self.parts.graph.head_path)

    def parameter_stages(self) -> list[list[nn.Parameter]]:
        """The parameters in about as many stages as a network has blocks, in running order.

        A stage begins with a residual sum's branch, or with a layer outside of all of them.
        """
        matrices = self.parts.choices.kernel_matrices
        found = []
        for stage in self.parts.graph.stages:
            names = [one for name in stage for one in (name, *matrices.get(name, ()))]
            tensors = map(self._tensor, names)
            found.append([one for one in tensors if isinstance(one, nn.Parameter)])
        return found

    def weights_of_layers(self) -> list[nn.Parameter]:
        """The weights of convolutions and linear layers."""
        found = (self._tensor(name) for name in self.parts.graph.weights)
        return [one for one in found if isinstance(one, nn.Parameter)]

    # Sorting.

    @torch.no_grad()
    def sort_channels(
        self, trained: Sequence[Architecture] = (), images: Tensor | None = None
    ) -> None:
        """Put the important channels of every group first; the whole network computes the same.

        Args:
            trained: architectures whose widths were trained as leading channels; channels stay
                inside of the borders that they have.
            images: (N, channels, size, size), by whose activations channels are important; by their
                weights alone where None.
        """
        deviations = {} if images is None else self._input_deviations(images)
        for name, group in self.parts.choices.groups.items():
            kept = {
                self.parts.choices.width(name, int(one.mapping[name]))
                for one in trained
                if name in one.mapping
            }
            self._sort(group, kept, self._importance(group, deviations))

    def _importance(self, group: Group, deviations: Mapping[str, Tensor]) -> Tensor:
        """How much each unit of a group matters to the layers that read it, (units,).

        The L1 norm of the weights that read it; with images the standard deviation of what it adds
        to their sums.
        """
        found = torch.zeros(group.width // group.unit, dtype=torch.float64)
        for name, dim in self.parts.graph.consumed[group]:
            weight = self._tensor(name).double().transpose(0, dim).flatten(1)
            if name in deviations:
                weight = weight.square() * deviations[name].double()[:, None].square()
            else:
                weight = weight.abs()
            for start, positions in self._places(name, dim, group):
                part = weight[start : start + positions].sum(1).cpu()
                found += part.view(len(found), -1).sum(1)
        return found

    def _places(self, name: str, dim: int, group: Group) -> Iterable[tuple[int, int]]:
        """Where a group is on a dimension of a parameter, as starts and lengths."""
        start = 0
        for piece in pieces_of(self.parts.graph.dims.axes[name, dim]):
            if piece.group is group:
                yield start, piece.positions
            start += piece.positions

    def _sort(self, group: Group, kept: Iterable[int], importance: Tensor) -> None:
        units = len(importance)
        inner = {width // group.unit for width in kept if width < group.width}
        borders = sorted({0, units, *inner})
        order = torch.cat(
            [
                start + importance[start:end].argsort(descending=True, stable=True)
                for start, end in itertools.pairwise(borders)
            ]
        )
        for (name, dim), axis in self.parts.graph.axes.items():
            if group not in groups_of(axis):
                continue
            tensor = self._tensor(name)
            where = torch.arange(tensor.shape[dim])
            for start, positions in self._places(name, dim, group):
                in_units = where[start : start + positions].view(units, -1)
                where[start : start + positions] = in_units[order].flatten()
            tensor.copy_(tensor.index_select(dim, where.to(tensor.device)))

    def _input_deviations(self, images: Tensor) -> dict[str, Tensor]:
        """The standard deviation of every channel that a layer reads, by the layer's weight."""
        wanted = {name for name, _ in self.parts.graph.dims.consumers}
        found: dict[str, Tensor] = {}
        largest = self.space.largest()
        plan = self.parts.plan(largest)

        def run(step: Step, args: Any, kwargs: Any) -> Any:
            weight = plan.parameters.get(step.args[1]) if _reads_weight(step) else None
            if weight in wanted:
                x, dim = args[0].float(), 1 if "conv" in step.name else -1
                found[str(weight)] = x.transpose(0, dim).flatten(1).std(1)
            return self._run_step(step, args, kwargs, whole=False, dropout=False)

        run_plan(plan, self._tensor, self._prepared(images, largest), run)
        return found


class Parts:
    """What of a supernet never changes: copies of the supernet share it.

    Args:
        graph: of the network.
        choices: of the graph.
    """

    def __init__(self, graph: ForeignGraph, choices: Choices) -> None:
        self.graph, self.choices = graph, choices
        self.plan = functools.lru_cache(PLANS)(self._plan)

    def __deepcopy__(self, memo: object) -> Parts:
        return self

    def _plan(self, architecture: Architecture) -> Plan:
        """The steps of a sub-network."""
        options = architecture.mapping
        widths = {
            group: self.choices.width(name, int(options[name]))
            for name, group in self.choices.groups.items()
            if name in options
        }
        skipped = [branch for name, branch in self.choices.branches.items() if not options[name]]
        kernels = {
            kernel: int(options[name])
            for name, kernel in self.choices.kernels.items()
            if name in options
        }
        return Plan(self.graph, widths, tuple(skipped), kernels)


RunStep = Callable[[Step, Any, Any], Any]


def run_plan(
    plan: Plan, tensor_of: Callable[[str], Tensor], images: Tensor, run_step: RunStep
) -> Tensor:
    """Run the steps of a plan.

    Args:
        plan: of a sub-network.
        tensor_of: a parameter or buffer of the whole network by its name.
        images: as the module takes them.
        run_step: runs an operator on its arguments.
    """
    values: dict[Any, Any] = {plan.graph.inputs[0]: images}
    for node, name in plan.parameters.items():
        values[node] = plan.active(name, tensor_of)
    for step in plan.steps:
        kwargs = filled(step.kwargs, values) if step.kwargs else {}
        values[step.node] = run_step(step, step.arguments(values, len(images)), kwargs)
        for node in plan.last_read.get(step.node, ()):
            del values[node]
    found: Tensor = values[plan.result]
    return found


def forget_statistics(network: nn.Module) -> None:
    """Make the statistics of every BatchNorm unknown, as in `pliant.networks.plain`."""
    for module in network.modules():
        if isinstance(module, BATCH_NORMS) and module.running_mean is not None:
            assert module.running_var is not None
            module.running_mean.fill_(torch.nan)
            module.running_var.fill_(torch.nan)
            module.register_forward_pre_hook(plain.begin_statistics)


def _has_seen_nothing(module: nn.Module) -> bool:
    """Whether the statistics are those with which PyTorch begins: mean 0, variance 1."""
    if not isinstance(module, BATCH_NORMS) or module.running_mean is None:
        return False
    assert module.running_var is not None
    return not bool(module.running_mean.any()) and bool((module.running_var == 1).all())


def _reads_weight(step: Step) -> bool:
    return len(step.args) > 1 and isinstance(step.args[1], fx.Node)


def _place_tensors(supernet: nn.Module, module: nn.Module, graph: ForeignGraph) -> None:
    """Give the supernet the parameters and buffers of a module, by the same names."""
    persistent = set(module.state_dict())
    for name, parameter in module.named_parameters(remove_duplicate=False):
        place_tensor(supernet, name, parameter)
    for name, buffer in module.named_buffers(remove_duplicate=False):
        place_tensor(supernet, name, buffer, persistent=name in persistent)
    for name, tensor in graph.constants.items():
        if name not in persistent and name not in dict(module.named_buffers()):
            place_tensor(supernet, name, tensor, persistent=False)


def place_tensor(module: nn.Module, name: str, tensor: Tensor, *, persistent: bool = True) -> None:
    """Put a parameter or buffer at its name, such as stage1.0.conv.weight.

    Raises:
        ForeignError: a part of the name is one of the supernet's own.
    """
    *path, last = name.split(".")
    for step in path:
        if step not in module._modules:
            _require_free(module, step)
            module.add_module(step, nn.Module())
        module = cast(nn.Module, module._modules[step])
    _require_free(module, last)
    if isinstance(tensor, nn.Parameter):
        module.register_parameter(last, tensor)
    else:
        module.register_buffer(last, tensor, persistent=persistent)


def _require_free(module: nn.Module, name: str) -> None:
    if hasattr(module, name) and name not in module._modules:
        raise ForeignError(
            f"a supernet has its own {name!r}, and the network has a part of that name. Rename it."
        )


def _place_kernel_matrices(module: nn.Module, choices: Choices) -> None:
    """Give a module the matrices of its smaller kernels, beside the weights of the full ones."""
    for kernel in choices.kernels.values():
        for link, matrix in kernel_matrices(kernel.options[:-1]).items():
            place_tensor(module, kernel.matrix(link), matrix)


def _all_tensors(module: nn.Module, graph: ForeignGraph) -> dict[str, Tensor]:
    """Parameters, buffers and constants, by name."""
    return {
        **dict(module.named_parameters(remove_duplicate=False)),
        **dict(module.named_buffers(remove_duplicate=False)),
        **graph.constants,
    }


def make_elastic(
    module: nn.Module,
    example: Tensor,
    *,
    keep: Sequence[str] = (),
    resolutions: Sequence[int] = (),
    name: str = "foreign",
    preprocess: bool = False,
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
) -> ForeignSupernet:
    """A supernet of a classifier that somebody already has.

    It has the parameters of the module by the same names, computes the same at full size, and holds
    the sub-networks with fewer channels, heads and residual branches, and with smaller kernels.

    Args:
        module: takes images and returns logits; copied, and left as it was.
        example: (N, channels, size, size), as the module takes them.
        keep: modules whose layers keep their widths and stay, such as `stem`.
        resolutions: of the images, in pixels, that sub-networks may have instead of the example's;
            they are resized before the network. Those that the network does not take are left out.
        name: of the space; by `file.py:NAME` or `timm:NAME` any process can make it again.
        preprocess: whether sub-networks read pixels from 0 to 1, which they normalise and resize.
        mean, std: of the pixels, by channel, that the network was trained with; those of the
            training images where empty.

    Raises:
        ForeignError: the module does not run on the example or cannot be exported, `keep` names no
            module, nothing can shrink, or a sub-network would not run.
    """
    modules = dict(module.named_modules())
    for kept in keep:
        if kept not in modules:
            raise ForeignError(
                f"what is kept is a module of the network, received {kept!r}. "
                f"{nearest(kept, [one for one in modules if one])}"
            )
    if example.ndim != 4 or example.shape[-1] != example.shape[-2]:
        raise ForeignError(
            "an example is a batch of square images, (N, channels, size, size); received"
            f" {tuple(example.shape)}."
        )
    module = copied(module)
    graph = ForeignGraph(module, example)
    size = example.shape[-1]
    tensors = _all_tensors(module, graph)
    sizes, refused = _taken(module, graph, tensors, example, {*resolutions} - {size})
    choices = elastic_choices(graph, keep=keep, resolutions=[*sizes, size])
    _place_kernel_matrices(module, choices)
    if all(choice.dimension == "resolution" for choice in choices.choices):
        reasons = "; ".join(f"{layer}: {why}" for layer, why in list(choices.fixed.items())[:5])
        raise ForeignError(
            f"nothing of the network can shrink, since its layers keep their outputs ({reasons})."
            " Use a network with inner layers of its own width."
        )
    logits = graph.result.meta["val"]
    description = ForeignDescription(
        source=name,
        choices=tuple(choices.choices),
        by_resolution=describe_layers(graph, choices, _all_tensors(module, graph), [*sizes, size]),
        preprocesses=preprocess or len(sizes) > 0,
        fixed=choices.fixed | refused,
        mean=tuple(mean),
        std=tuple(std),
    )
    space = ForeignSpace(
        plugin_name(name) if is_plugin(name) else name,
        description,
        channels=example.shape[1],
        image_size=size,
        classes=int(logits.shape[-1]),
    )
    supernet = ForeignSupernet(module, graph, choices, space)
    supernet.train(module.training)
    _require_same(module, supernet, example)
    return supernet


@torch.no_grad()
def _taken(
    module: nn.Module,
    graph: ForeignGraph,
    tensors: Mapping[str, Tensor],
    example: Tensor,
    resolutions: Iterable[int],
) -> tuple[list[int], dict[str, str]]:
    """The resolutions at which the graph computes what the network does, and why others are not.

    Args:
        module: the network.
        graph: of the network, exported at another resolution.
        tensors: of the network.
        example: a batch of its input.
        resolutions: in pixels.
    """
    plan = Plan(graph, {}, (), {})
    taken, refused = [], {}
    for size in sorted(resolutions):
        images = torch.rand((CHECKED_IMAGES, example.shape[1], size, size))
        try:
            with evaluation(module):
                theirs = module(images)
                ours = run_plan(plan, tensors.__getitem__, images, _as_written)
            same = float((theirs - ours).abs().max() / theirs.abs().max().clamp_min(1e-12))
        except Exception as error:  # whatever the network raises for images of another size
            refused[f"resolution {size}"] = str(error).strip().splitlines()[0][:100]
            continue
        if same <= TOLERANCE:
            taken.append(size)
        else:
            refused[f"resolution {size}"] = "the network computes with other sizes there"
    return taken, refused


def _as_written(step: Step, args: Any, kwargs: Any) -> Any:
    return step.target(*args, **kwargs)


@torch.no_grad()
def _require_same(module: nn.Module, supernet: ForeignSupernet, example: Tensor) -> None:
    """Refuse a supernet that does not compute what the network does, or not at all at a size."""
    images = example[:CHECKED_IMAGES]
    if len(images) < CHECKED_IMAGES:
        images = torch.cat([images, images.flip(-1)])
    with evaluation(module), evaluation(supernet):
        theirs, ours = module(images), supernet(images)
    worst = float((theirs - ours).abs().max() / theirs.abs().max().clamp_min(1e-12))
    if not worst <= TOLERANCE and not bool(theirs.isnan().all()):
        raise ForeignError(
            "a supernet at full size computes what the network does; here the outputs differ by"
            f" {worst:.1e} of the largest one. Use a network whose outputs are finite and not"
            " random in evaluation mode."
        )
    try:
        with evaluation(supernet):
            supernet(images, supernet.space.smallest())
    except Exception as error:
        raise ForeignError(
            f"every sub-network runs; the smallest one ended in {type(error).__name__}:"
            f" {str(error).strip().splitlines()[0][:200]}. Keep the modules that it names with"
            " keep=(...)."
        ) from error
