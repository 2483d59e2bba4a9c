"""What the hardware is: the processing-element array, its memories, links, word widths, energies and area.

A chip is a TOML file with the unit in every key, or the same thing built in Python. `load_chip("eyeriss")` reads
a chip that ships with Pliant, `load_chip("mine.toml")` one of the user's own.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from importlib import resources
from pathlib import Path
from typing import Any, Final

from pliant.accelerator.energy import EnergyTable, energy_table
from pliant.errors import RecipeError, nearest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DIMS: Final = "NGKCPQRS"
"""The loops of a layer, in the order in which every array of this package holds them."""


@dataclass(frozen=True, slots=True)
class Axis:
    """One direction of the array: its length, and which loops the wiring can spread over it."""

    name: str
    size: int
    loops: str = DIMS
    """Letters out of NGKCPQRS. Spreading C, R or S needs links that add partial sums; without them, leave these out."""
    max_loops: int = 2
    """How many loops may share the axis, one folded inside the other."""


@dataclass(frozen=True, slots=True)
class Memory:
    """One level of storage: one size for all tensors, or one size for each."""

    shared_bytes: float | None = None
    weight_bytes: float = math.inf
    input_bytes: float = math.inf
    output_bytes: float = math.inf
    double_buffered: bool = False
    """Whether half of the space fills while the other half is used: tiles count twice, transfers overlap with work."""
    bandwidth_bytes_per_cycle: float = math.inf
    """Traffic between this memory and the next one inwards (registers: every delivery over the network on chip)."""

    @property
    def total_bytes(self) -> float:
        """All of its space."""
        return (
            self.shared_bytes
            if self.shared_bytes is not None
            else self.weight_bytes + self.input_bytes + self.output_bytes
        )


@dataclass(frozen=True, slots=True)
class WordWidths:
    """How wide the numbers are, in bits."""

    weight_bits: int = 8
    input_bits: int = 8
    output_bits: int = 8
    partial_sum_bits: int = 32


@dataclass(frozen=True, slots=True)
class Area:
    """Square micrometres of the parts; the constants that ship are those of GAMMA and DiGamma (about 28 nm)."""

    mac_um2: float = 282.0
    register_um2_per_bit: float = 0.086
    buffer_um2_per_bit: float = 0.086


@dataclass(frozen=True, slots=True)
class Chip:
    """An accelerator on paper: array, registers in every element, a global buffer, DRAM.

    Raises:
        RecipeError: a number is out of its range, or a memory cannot hold one element of each tensor.
    """

    name: str
    axes: tuple[Axis, ...]
    registers: Memory
    """Of one processing element."""
    buffer: Memory
    energy: EnergyTable
    clock_mhz: float
    dram_bandwidth_bytes_per_cycle: float = math.inf
    word_widths: WordWidths = field(default_factory=WordWidths)
    multicast: bool = True
    """Whether a word that several PEs need is read from the buffer once."""
    macs_per_pe_per_cycle: float = 1.0
    area: Area = field(default_factory=Area)
    source: str = ""

    def __post_init__(self) -> None:
        if not 1 <= len(self.axes) <= 3:
            raise RecipeError(
                f"chip {self.name!r}: an array has 1, 2 or 3 axes, received {len(self.axes)}."
            )
        for axis in self.axes:
            if axis.size < 1 or axis.max_loops < 1 or set(axis.loops) - set(DIMS):
                raise RecipeError(
                    f"chip {self.name!r}, axis {axis.name!r}: sizes start at 1 and loops are out of {DIMS}, received {axis}."
                )
        positive = {
            "clock_mhz": self.clock_mhz,
            "dram_bandwidth_bytes_per_cycle": self.dram_bandwidth_bytes_per_cycle,
            "buffer.bandwidth_bytes_per_cycle": self.buffer.bandwidth_bytes_per_cycle,
            "registers.bandwidth_bytes_per_cycle": self.registers.bandwidth_bytes_per_cycle,
            "macs_per_pe_per_cycle": self.macs_per_pe_per_cycle,
        } | {f"word_widths.{key}": getattr(self.word_widths, key) for key in WordWidths.__slots__}
        if wrong := {key: value for key, value in positive.items() if not value > 0}:
            raise RecipeError(f"chip {self.name!r}: these are above 0, received {wrong}.")
        for where, memory in (("registers", self.registers), ("buffer", self.buffer)):
            self._holds_one_of_each(where, memory)

    def _holds_one_of_each(self, where: str, memory: Memory) -> None:
        copies = 2 if memory.double_buffered else 1
        words = self.word_widths
        sizes = {
            "weight": words.weight_bits,
            "input": words.input_bits,
            "output": words.partial_sum_bits,
        }
        needed = {key: bits / 8 * copies for key, bits in sizes.items()}
        held = {key: getattr(memory, f"{key}_bytes") for key in sizes}
        if memory.shared_bytes is not None:
            needed, held = {"shared": sum(needed.values())}, {"shared": memory.shared_bytes}
        for key, size in needed.items():
            if held[key] < size:
                raise RecipeError(
                    f"chip {self.name!r}: every memory holds at least one element of each tensor; "
                    f"{where}.{key}_bytes is {held[key]:g}, and {size:g} are needed."
                )

    @property
    def pes(self) -> int:
        """Processing elements of the array."""
        return math.prod(axis.size for axis in self.axes)

    @property
    def area_mm2(self) -> float:
        """Multipliers, registers and buffer; wires, control and pads are not in it."""
        register_bits, buffer_bits = 8 * self.registers.total_bytes, 8 * self.buffer.total_bytes
        element = (
            self.area.mac_um2 * self.macs_per_pe_per_cycle
            + self.area.register_um2_per_bit * register_bits
        )
        return (self.pes * element + self.area.buffer_um2_per_bit * buffer_bits) / 1e6


def shipped_chips() -> tuple[str, ...]:
    """Names of the chips that come with Pliant."""
    return tuple(
        sorted(
            entry.name[: -len(".toml")]
            for entry in _folder().iterdir()
            if entry.name.endswith(".toml")
        )
    )


def load_chip(name_or_path: str | Path) -> Chip:
    """A chip that ships (`"eyeriss"`), or the TOML file at a path.

    Raises:
        RecipeError: no such chip or file, or a file that does not describe one.
    """
    text = str(name_or_path)
    if not text.endswith(".toml"):
        if text not in shipped_chips():
            raise RecipeError(
                f"no chip is called {text!r} (a file's name ends in .toml). {nearest(text, shipped_chips())}"
            )
        content = (_folder() / f"{text}.toml").read_text(encoding="utf-8")
    else:
        try:
            content = Path(text).read_text(encoding="utf-8")
        except OSError as error:
            raise RecipeError(
                f"the chip file {text!r} cannot be read: {error.strerror}."
            ) from error
    return parse_chip(content, default_name=Path(text).stem)


def parse_chip(toml: str, default_name: str = "chip") -> Chip:
    """A chip from the text of its TOML file.

    Raises:
        RecipeError: no TOML, a key that is unknown or missing (the message names the nearest), or a value out of range.
    """
    try:
        given = tomllib.loads(toml)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"chip {default_name!r}: not a TOML file: {error}.") from error
    axes = given.pop("axes", None)
    if not isinstance(axes, list):
        raise RecipeError(
            f"chip {default_name!r}: the array is stated as [[axes]] tables with name, size and loops."
        )
    parts: dict[str, Any] = {
        "axes": tuple(_build(Axis, axis, "axes") for axis in axes),
        "registers": _build(Memory, given.pop("registers", {}), "registers"),
        "buffer": _build(Memory, given.pop("buffer", {}), "buffer"),
        "word_widths": _build(WordWidths, given.pop("word_widths", {}), "word_widths"),
        "area": _build(Area, given.pop("area", {}), "area"),
        "energy": energy_table(given.pop("energy", {})),
    }
    for key in ("registers", "buffer"):
        if math.isinf(parts[key].total_bytes):
            raise RecipeError(
                f"chip {default_name!r}: {key} states shared_bytes, or weight_bytes, input_bytes and output_bytes."
            )
    return _build(Chip, {"name": default_name, **given}, "the chip", **parts)


def _folder() -> Any:
    return resources.files("pliant.accelerator") / "chips"


def _build(kind: Any, given: Mapping[str, Any], where: str, **parts: Any) -> Any:
    """A dataclass from a TOML table, every key checked."""
    if not isinstance(given, Mapping):
        raise RecipeError(f"{where}: a table of keys and values is needed, received {given!r}.")
    known = {item.name: item for item in fields(kind)}
    _check_keys(given, known, where)
    for key, value in given.items():
        wanted = str(known[key].type)
        if "str" in wanted:
            good = isinstance(value, str)
        elif "bool" in wanted:
            good = isinstance(value, bool)
        else:
            number = int if wanted == "int" else (int, float)
            good = isinstance(value, number) and not isinstance(value, bool) and value >= 0
        if not good:
            raise RecipeError(
                f"{where}: {key} is of type {wanted} (numbers from 0 up), received {value!r}."
            )
    missing = [
        name
        for name, item in known.items()
        if name not in given
        and name not in parts
        and item.default is MISSING
        and item.default_factory is MISSING
    ]
    if missing:
        raise RecipeError(f"{where}: {missing[0]!r} is missing.")
    return kind(**given, **parts)


def _check_keys(given: Iterable[str], known: Iterable[str], where: str) -> None:
    for key in given:
        if key not in known:
            raise RecipeError(
                f"{where}: unknown key {key!r}; every key carries its unit. {nearest(key, known)}"
            )
