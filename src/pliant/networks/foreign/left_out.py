"""Which modules of a network have nothing to do in a sub-network, since their branch is left out.

A block whose branches are all left out returns what it reads. Of a branch that shares its block
with others, the modules inside of it do nothing and the last of them returns zeros, which the sum
adds.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from pliant.networks.foreign.graph import Branch, ForeignGraph
from pliant.networks.foreign.operators import Node
from pliant.networks.morph.channel_graph import operator_name

LeftOut = dict[str, Literal["identity", "zeros"]]
"""What stands in place of a module, by its path."""
IDEMPOTENT = ("relu", "relu6", "hardtanh", "clamp", "clamp_min")
"""Operators that change nothing where they follow themselves."""
PASSING = ("max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "dropout", "contiguous", "clone")
"""Operators in evaluation mode whose results are between the values that they read."""


def modules_left_out(graph: ForeignGraph, skipped: Sequence[Branch]) -> LeftOut:
    """What to put in place of modules so that they compute what the sub-network does.

    It is a proposal: whoever uses it compares outputs. The activation behind a sum is left out with
    its block where the same activation comes before the block.
    """
    gone = {node for branch in skipped for node in (*branch.inside, branch.total)}
    called = [node for node in graph.nodes if node.op == "call_function"]
    found: LeftOut = {}
    for branch in skipped:
        block = module_path(branch.total)
        rest = [node for node in called if _is_in(node, block) and node not in gone]
        if block and all(_changes_nothing(node, branch) for node in rest):
            found[block] = "identity"
            continue
        inside = [node for node in called if node in branch.inside]
        paths = list(dict.fromkeys(_whole_module(node, branch, called) for node in inside))
        for path in filter(None, paths):
            found[path] = "zeros" if path == paths[-1] else "identity"
    return {path: kind for path, kind in found.items() if not _has_parent(path, found)}


def _changes_nothing(node: Node, branch: Branch) -> bool:
    """Whether an operator behind a branch's sum does nothing where the branch is left out."""
    name, before = operator_name(node), branch.shortcut
    while operator_name(before) in PASSING:
        before = before.args[0]
    if name not in IDEMPOTENT:
        return name in ("dropout", "contiguous", "clone")
    return name == operator_name(before) and node.args[1:] == before.args[1:]


def module_path(node: Node) -> str:
    """The module in which an operator runs; empty for the network itself."""
    stack = node.meta.get("nn_module_stack") or {"": ("", None)}
    return re.sub(r"@\d+", "", str(list(stack.values())[-1][0]))  # of a module that runs again


def _is_in(node: Node, path: str) -> bool:
    own = module_path(node)
    return not path or own == path or own.startswith(f"{path}.")


def _whole_module(node: Node, branch: Branch, called: Sequence[Node]) -> str:
    """The largest module around an operator that is in a branch with all that it runs."""
    parts = module_path(node).split(".")
    for length in range(1, len(parts) + 1):
        path = ".".join(parts[:length])
        if path and all(one in branch.inside for one in called if _is_in(one, path)):
            return path
    return ""


def _has_parent(path: str, others: LeftOut) -> bool:
    return any(path.startswith(f"{other}.") for other in others)
