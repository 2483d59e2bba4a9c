"""Loading the weights of another network: all of them fit, or none is loaded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from pliant.errors import RecipeError

CLASSIFIER = ("blocks.head.classifier.weight", "blocks.head.classifier.bias")
"""Stays fresh where the other network has other classes."""

MAX_NAMED = 3
"""Tensors that an error names."""


def load_weights(
    network: nn.Module,
    found: Mapping[str, Tensor],
    *,
    source: str,
    advice: str,
    optional: Iterable[str] = (),
) -> None:
    """Load every tensor, but for a classifier of other classes.

    Args:
        network: a supernet or a plain network.
        found: by the names of the network's state.
        source: where they come from, for messages.
        advice: what to do where they do not fit, a sentence.
        optional: names that either side may lack.

    Raises:
        RecipeError: they are those of another network; names the tensors that differ.
    """
    expected, either = dict(network.state_dict()), set(optional)
    if _other_classes(found, expected):
        found = {name: tensor for name, tensor in found.items() if name not in CLASSIFIER}
        either |= set(CLASSIFIER)
    missing, unknown = expected.keys() - found.keys(), found.keys() - expected.keys()
    wrong = [f"{name} is missing there" for name in expected if name in missing - either]
    wrong += [f"{name} is unknown here" for name in found if name in unknown - either]
    for name, tensor in found.items():
        if name in expected and tensor.shape != expected[name].shape:
            here, there = tuple(expected[name].shape), tuple(tensor.shape)
            wrong.append(f"{name} is {there} there and {here} here")
    if wrong:
        more = f" and {len(wrong) - MAX_NAMED} more" if len(wrong) > MAX_NAMED else ""
        raise RecipeError(
            f"a start holds the weights of this network; {source} differs in {len(wrong)} tensors:"
            f" {'; '.join(wrong[:MAX_NAMED])}{more}. {advice}"
        )
    known = {name: tensor for name, tensor in found.items() if name in expected}
    network.load_state_dict(expected | known)


def _other_classes(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> bool:
    """Whether both have a classifier, which differ in their number of classes only."""
    return all(
        name in found
        and name in expected
        and found[name].shape[1:] == expected[name].shape[1:]
        and len(found[name]) != len(expected[name])
        for name in CLASSIFIER
    )
