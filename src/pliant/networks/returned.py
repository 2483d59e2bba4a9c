"""What a network of the user's returns in place of logits, and the wrapper that picks them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

USUAL_KEYS = ("logits", "out")
"""Of logits in a dict: Hugging Face's name, and torchvision's."""


def describe_output(output: object) -> str:
    """What was returned, and for a dict or a tuple what to do; ends without a full stop.

    A network may return the logits of auxiliary heads too, and which of several are those of the
    classifier is for its author to say.
    """
    if isinstance(output, Tensor):
        return f"{tuple(output.shape)}"
    pick: object = 0
    if isinstance(output, Mapping):
        what = f"a dict of {', '.join(map(repr, output)) or 'nothing'}"
        pick = next((key for key in (*USUAL_KEYS, *output) if key in output), USUAL_KEYS[0])
    elif isinstance(output, Sequence) and not isinstance(output, str):
        what = f"a {type(output).__name__} of {len(output)}"
    else:
        return f"an object of type {type(output).__name__}"
    return (
        f"{what}. Wrap it in a module that returns one tensor, whose forward is: "
        f"return self.network(images)[{pick!r}]"
    )
