"""The dimensions of tensors in terms of channel groups, and how two of them become one.

A dimension is a product of factors, outermost first: a whole number, the batch, or a sum of pieces.
A piece is a group of channels, each of which has `per` positions in a row. So the outputs of an
attention layer's first product are `3 x heads x 64`, a flattened picture is `channels x 49`, and a
concatenation is the sum of two groups. Groups are refined while a network is read: `unify` makes
one group of two, and where only a part of a group meets another one, the group is cut. The idea of
groups that must be cut together is that of Fang, G., Ma, X., Song, M., Mi, M. B., Wang, X.,
DepGraph: Towards Any Structural Pruning, 2023, arXiv:2301.12900; that a group is a piece of a
dimension, which reshapes may split and merge, is ours.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

MAX_REPEATS = 16
"""Times that a dimension may hold the same group one behind the other."""


@dataclass(eq=False)
class Group:
    """Channels that are kept or left out together wherever they are."""

    width: int
    unit: int = 1
    """Channels in a row that are only kept as a whole: those of a head, or of a convolution's
    group."""
    fixed: str = ""
    """Why their number cannot change; empty where it can."""
    becomes: tuple[Piece, ...] = ()
    """What stands for the group since it was merged or cut."""


@dataclass(frozen=True)
class Piece:
    """A part of a sum: a group whose channels have `per` positions each, or that many alone."""

    group: Group | None
    per: Fraction = Fraction(1)

    @property
    def positions(self) -> int:
        """Its length at full size."""
        return int((self.group.width if self.group else 1) * self.per)


@dataclass(frozen=True)
class Batch:
    """The images of a batch, as a factor."""

    size: int


@dataclass(frozen=True)
class Sum:
    """Pieces one behind the other, as a factor."""

    pieces: tuple[Piece, ...]


Factor = int | Batch | Sum
Dim = tuple[Factor, ...]
"""Factors, outermost first; empty for a dimension of size 1."""


def group_dim(width: int, fixed: str = "") -> Dim:
    """A dimension of a new group."""
    return () if width == 1 else (Sum((Piece(Group(width, fixed=fixed)),)),)


def static(size: int) -> Dim:
    """A dimension that no choice changes."""
    return () if size == 1 else (size,)


def resolved(pieces: Iterable[Piece]) -> tuple[Piece, ...]:
    """The pieces with what their groups became."""
    found: list[Piece] = []
    for piece in pieces:
        group = piece.group
        if group is None or not group.becomes:
            found.append(piece)
            continue
        inner = group.becomes = resolved(group.becomes)
        found += [Piece(one.group, one.per * piece.per) for one in inner]
    return tuple(found)


def factors(dim: Dim) -> Dim:
    """The factors with what their groups became; a sum of numbers alone is a number."""
    found: list[Factor] = []
    for factor in dim:
        if not isinstance(factor, Sum):
            found.append(factor)
            continue
        pieces = resolved(factor.pieces)
        if all(piece.group is None for piece in pieces):
            found.append(sum(piece.positions for piece in pieces))
        else:
            found.append(Sum(pieces))
    return tuple(found)


def length(factor: Factor) -> int:
    """Of a factor at full size."""
    if isinstance(factor, int):
        return factor
    if isinstance(factor, Batch):
        return factor.size
    return sum(piece.positions for piece in factor.pieces)


def full_size(dim: Dim) -> int:
    """Of a dimension, at full size."""
    return math.prod(map(length, dim))


def active_size(dim: Dim, batch: int, widths: Mapping[Group, int]) -> int:
    """Of a dimension.

    Args:
        dim: its factors.
        batch: images in the batch.
        widths: channels kept, by group; all of those of other groups.
    """
    size = 1
    for factor in factors(dim):
        if isinstance(factor, int):
            size *= factor
        elif isinstance(factor, Batch):
            size *= batch
        else:
            size *= int(sum(_active(piece, widths) for piece in factor.pieces))
    return size


def _active(piece: Piece, widths: Mapping[Group, int]) -> Fraction:
    if piece.group is None:
        return piece.per
    return widths.get(piece.group, piece.group.width) * piece.per


def pieces_of(dim: Dim) -> tuple[Piece, ...]:
    """The pieces of a dimension."""
    sums = [factor for factor in factors(dim) if isinstance(factor, Sum)]
    return tuple(piece for one in sums for piece in one.pieces)


def groups_of(dim: Dim) -> tuple[Group, ...]:
    """The groups of a dimension."""
    return tuple(piece.group for piece in pieces_of(dim) if piece.group is not None)


def fix(dim: Dim, reason: str) -> None:
    """No choice may change the dimension."""
    for group in groups_of(dim):
        group.fixed = group.fixed or reason


def has_batch(dim: Dim) -> bool:
    """Whether the batch is one of the factors."""
    return any(isinstance(factor, Batch) for factor in dim)


def unify(one: Dim, other: Dim, reason: str) -> None:
    """Make two dimensions of one size the same.

    Args:
        one, other: they have the same size.
        reason: why the groups are fixed where they cannot be made the same.
    """
    ours, theirs = list(factors(one)), list(factors(other))
    while ours and theirs:
        left, right = ours.pop(0), theirs.pop(0)
        if length(left) > length(right):
            left, right, ours, theirs = right, left, theirs, ours
        if length(left) < length(right):
            parts = _split(right, length(left), keep_inner=not isinstance(left, Sum))
            if parts is None:
                fix((left, right, *ours, *theirs), reason)
                return
            right, rest = parts
            theirs = [*rest, *theirs]
        _unify_factors(left, right, reason)
        ours, theirs = list(factors(tuple(ours))), list(factors(tuple(theirs)))


def _unify_factors(one: Factor, other: Factor, reason: str) -> None:
    if isinstance(one, Sum) and isinstance(other, Sum):
        _unify_pieces(one.pieces, other.pieces, reason)
    else:
        fix((one, other), reason)


def _unify_pieces(one: tuple[Piece, ...], other: tuple[Piece, ...], reason: str) -> None:
    ours, theirs = list(resolved(one)), list(resolved(other))
    while ours and theirs:
        left, right = ours[0], theirs[0]
        if left.positions > right.positions:
            left, right, ours, theirs = right, left, theirs, ours
        if left.positions < right.positions:
            if not _cut(right, left.positions):
                fix((Sum((*ours, *theirs)),), reason)
                return
        elif left.group is None or right.group is None:
            fix((Sum((left, right)),), reason)
            ours, theirs = ours[1:], theirs[1:]
        else:
            _merge(left, right, reason)
            ours, theirs = ours[1:], theirs[1:]
        ours, theirs = list(resolved(ours)), list(resolved(theirs))


def _merge(one: Piece, other: Piece, reason: str) -> None:
    """One group of two whose pieces have the same length."""
    assert one.group is not None
    assert other.group is not None
    if one.group is other.group:
        if one.per != other.per:
            fix((Sum((one,)),), reason)
        return
    gone, kept = (one, other) if one.per >= other.per else (other, one)
    assert gone.group is not None
    assert kept.group is not None
    ratio = gone.per / kept.per  # channels of the kept group for each of the one that goes
    unit = ratio * gone.group.unit
    kept.group.fixed = kept.group.fixed or gone.group.fixed
    if ratio.denominator == 1:
        kept.group.unit = math.lcm(kept.group.unit, int(unit))
    if ratio.denominator != 1 or kept.group.width % kept.group.unit:
        kept.group.fixed = kept.group.fixed or reason
    gone.group.becomes = (Piece(kept.group, 1 / ratio),)


def _cut(piece: Piece, positions: int) -> bool:
    """Make two pieces of one, the first of so many positions; whether that is possible."""
    group = piece.group
    if group is None:
        return True  # a number is cut by whoever reads it
    channels = positions / piece.per
    if channels.denominator != 1 or channels % group.unit or (group.width - channels) % group.unit:
        return False
    sizes = (int(channels), group.width - int(channels))
    parts = [Group(size, group.unit, group.fixed) for size in sizes]
    group.becomes = tuple(Piece(part) for part in parts)
    return True


def _split(factor: Factor, outer: int, *, keep_inner: bool) -> tuple[Factor, list[Factor]] | None:
    """A factor as `outer` times the rest; None where it cannot be.

    Args:
        factor: longer than `outer`.
        outer: length of the first part.
        keep_inner: whether the groups are those of the second part, so that the first only repeats
            them.
    """
    size = length(factor)
    if isinstance(factor, Batch) or size % outer:
        return None
    inner = size // outer
    if isinstance(factor, int):
        return outer, [inner]
    if keep_inner:
        repeated = _repeated(factor.pieces, outer)
        return None if repeated is None else (outer, [Sum(repeated)])
    units = []
    for piece in factor.pieces:
        if not _is_in_units(piece, inner):
            return None
        units.append(Piece(piece.group, piece.per / inner))
    return Sum(tuple(units)), [inner]


def _is_in_units(piece: Piece, positions: int) -> bool:
    """Whether a piece is kept and left out by so many positions; made so where it can be."""
    group = piece.group
    if group is None or piece.positions % positions:
        return False
    unit = math.lcm(group.unit, (positions / piece.per).numerator)
    if group.width % unit or (unit * piece.per) % positions:
        return False
    group.unit = unit
    return True


def _repeated(pieces: tuple[Piece, ...], times: int) -> tuple[Piece, ...] | None:
    """The pieces of which a sum is that many repetitions; None where it cannot be made so."""
    if times > MAX_REPEATS:
        return None
    total = sum(piece.positions for piece in pieces)
    parts = cut_at(pieces, [total // times] * times)
    if parts is None:
        return None
    for part in parts[1:]:
        _unify_pieces(parts[0], part, "its repetitions differ")
    return resolved(parts[0])


def cut_at(pieces: tuple[Piece, ...], sizes: Sequence[int]) -> list[tuple[Piece, ...]] | None:
    """The pieces in parts of these sizes; None where a border is inside of a unit.

    Args:
        pieces: of a sum.
        sizes: positions of each part, together those of the pieces.
    """
    parts: list[tuple[Piece, ...]] = []
    rest = list(resolved(pieces))
    for size in sizes:
        taken: list[Piece] = []
        missing = size
        while missing:
            first = rest[0]
            if first.positions > missing:
                if first.group is None:
                    rest[:1] = [Piece(None, Fraction(n)) for n in (missing, first.per - missing)]
                elif not _cut(first, missing):
                    return None
                else:
                    rest = list(resolved(rest))
                continue
            taken.append(rest.pop(0))
            missing -= first.positions
        parts.append(tuple(taken))
    return [resolved(part) for part in parts]


def as_pieces(dim: Dim) -> tuple[Piece, ...] | None:
    """A dimension as a sum of pieces; None where it is not."""
    parts = factors(dim)
    sums = [factor for factor in parts if isinstance(factor, Sum)]
    if any(isinstance(factor, Batch) for factor in parts) or len(sums) > 1:
        return None
    if not sums:
        return (Piece(None, Fraction(full_size(dim))),)
    at = parts.index(sums[0])
    outer, inner = full_size(parts[:at]), full_size(parts[at + 1 :])
    if outer > MAX_REPEATS:
        return None
    return tuple(Piece(piece.group, piece.per * inner) for piece in sums[0].pieces) * outer


def reshaped(
    dims: Sequence[Dim], sizes: Sequence[int], *, repeats_first: bool | None = None
) -> list[Dim] | None:
    """The dimensions of a tensor that is read in another shape; None where that mixes groups.

    Args:
        dims: of the tensor.
        sizes: of the new shape, at full size.
        repeats_first: whether what is split becomes a number of equal parts, rather than of heads;
            where None, as the shape suggests.
    """
    rest: list[Factor] = [factor for dim in dims for factor in factors(dim)]
    found: list[Dim] = []
    for position, size in enumerate(sizes):
        taken: list[Factor] = []
        missing = size
        while missing > 1:
            first = rest.pop(0)
            if missing % length(first) == 0:
                taken.append(first)
                missing //= length(first)
                continue
            keep_inner = repeats_first
            if keep_inner is None:
                keep_inner = _repeats_come_first(sizes, position)
            parts = _split(first, missing, keep_inner=keep_inner)
            if parts is None:
                parts = _split(first, missing, keep_inner=not keep_inner)
            if parts is None:
                return None
            taken.append(parts[0])
            rest = list(factors((*parts[1], *rest)))
            missing = 1
        found.append(tuple(taken))
    return found


def _repeats_come_first(sizes: Sequence[int], position: int) -> bool:
    """Whether a dimension that is split is a number of equal parts, rather than of heads.

    Queries, keys and values come before the heads; the halves of a channel shuffle before the
    channels, which are followed by rows and columns.
    """
    behind = len(sizes) - position - 1
    return (behind == 2 and sizes[position] in (2, 3)) or behind == 3
