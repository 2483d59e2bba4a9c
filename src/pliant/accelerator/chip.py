"""What the hardware is: the PE array, its memories, links, word widths, energies and area.

A chip is a TOML file with the unit in every key, or the same thing built in Python.
`load_chip("eyeriss")` reads a chip that ships with Pliant, `load_chip("mine.toml")` your own.
"""

from __future__ import annotations

import math
import re
import sys
from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final

import tomli_w
from pydantic import ConfigDict, Field, StrictBool, StrictStr

from pliant.accelerator.energy import EnergyTable, energy_table
from pliant.errors import RecipeError, nearest
from pliant.validation import validated
from pliant.workload.roofline import Roofline

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DIMS: Final = "NGKCPQRS"
"""The loops of a layer, in the order in which every array of this package holds them."""

Count = Annotated[int, Field(ge=1, strict=True)]
Size = Annotated[float, Field(ge=0, strict=True)]
FiniteSize = Annotated[float, Field(ge=0, strict=True, allow_inf_nan=False)]
Rate = Annotated[float, Field(gt=0, strict=True)]
MAX_PES: Final = 2**20
"""Of one array; a larger number is taken for a mistake."""


@dataclass(frozen=True, slots=True)
class Axis:
    """One direction of the array: its length, and which loops can be unrolled over it."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    name: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$", strict=True)]
    """One word, since a mapping prints it."""
    size: Annotated[int, Field(ge=1, le=MAX_PES, strict=True)]
    """PEs along the axis."""
    loops: Annotated[str, Field(pattern=rf"^[{DIMS}]+$", strict=True)] = DIMS
    """Letters out of NGKCPQRS, each once. Unrolling C, R or S needs links that add partial sums."""
    max_loops: Count = 2
    """How many loops may share the axis, one folded inside the other."""


@dataclass(frozen=True, slots=True)
class Memory:
    """One level of storage: one size for all tensors, or one size for each."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    shared_bytes: Size | None = None
    weight_bytes: Size = math.inf
    input_bytes: Size = math.inf
    output_bytes: Size = math.inf
    double_buffered: StrictBool = False
    """Whether half of the space fills while the other half is used.

    Tiles count twice, and transfers overlap with work.
    """
    bandwidth_bytes_per_cycle: Rate = math.inf
    """Traffic to the next memory inwards; of registers, all that the network on chip delivers."""

    @property
    def total_bytes(self) -> float:
        """All of its space."""
        if self.shared_bytes is not None:
            return self.shared_bytes
        return self.weight_bytes + self.input_bytes + self.output_bytes


@dataclass(frozen=True, slots=True)
class WordWidths:
    """How wide the numbers are, in bits."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    weight_bits: Count = 8
    input_bits: Count = 8
    output_bits: Count = 8
    partial_sum_bits: Count = 32


@dataclass(frozen=True, slots=True)
class Area:
    """Square micrometres of the parts, for `Chip.area_mm2`.

    The defaults are constants of about 28 nm from S.-C. Kao, T. Krishna, "GAMMA: Automating the HW
    Mapping of DNN Models on Accelerators via Genetic Algorithm", ICCAD 2020,
    doi:10.1145/3400302.3415639, as its code has them. The bus between buffer and array grows with
    its width and with the PEs that hang on it, as in MAESTRO (doi:10.1145/3352460.3358252):
    101.79 (14.662 PEs + 28.895) a byte where a MAC is 4470.9, here relative to `mac_um2`.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    mac_um2: FiniteSize = 282.0
    register_um2_per_bit: FiniteSize = 0.086
    buffer_um2_per_bit: FiniteSize = 0.086
    bus_um2_per_byte: FiniteSize = 282 * 101.7938 * 28.895 / 4470.9014
    """For each byte that the port moves in a cycle."""
    bus_um2_per_byte_and_pe: FiniteSize = 282 * 101.7938 * 14.662 / 4470.9014
    """The same, for each PE."""


@dataclass(frozen=True, slots=True)
class Chip:
    """An accelerator on paper: array, registers in every PE, a global buffer, DRAM.

    Raises:
        RecipeError: a number is out of its range, or a memory cannot hold one word of each tensor.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    name: StrictStr
    axes: tuple[Axis, ...]
    registers: Memory
    """Of one PE."""
    buffer: Memory
    energy: EnergyTable
    clock_mhz: Rate
    dram_bandwidth_bytes_per_cycle: Rate = math.inf
    word_widths: WordWidths = field(default_factory=WordWidths)
    multicast: StrictBool = True
    """Whether a word that several PEs need is read from the buffer once."""
    macs_per_pe_per_cycle: Rate = 1.0
    area: Area = field(default_factory=Area)
    source: StrictStr = ""

    def __post_init__(self) -> None:
        origin = f"chip {self.name!r}"
        if not 1 <= len(self.axes) <= 3:
            raise RecipeError(f"{origin}: an array has 1 to 3 axes, received {len(self.axes)}.")
        # Parts that were built in Python are checked here; those of a file were already.
        for axis in self.axes:
            validated(Axis, asdict(axis), f"{origin}, axis {axis.name!r}", "axis")
        for name in ("registers", "buffer", "energy", "word_widths", "area"):
            part = getattr(self, name)
            validated(type(part), asdict(part), f"{origin}, {name}", name)
        for name in ("clock_mhz", "dram_bandwidth_bytes_per_cycle", "macs_per_pe_per_cycle"):
            if not getattr(self, name) > 0:
                raise RecipeError(f"{origin}: {name} is above 0, received {getattr(self, name)}.")
        for name in ("clock_mhz", "macs_per_pe_per_cycle"):
            if math.isinf(getattr(self, name)):
                raise RecipeError(f"{origin}: {name} is finite, received inf.")
        self._check_axes(origin)
        for name, memory in (("registers", self.registers), ("buffer", self.buffer)):
            own = (memory.weight_bytes, memory.input_bytes, memory.output_bytes)
            if memory.shared_bytes is not None and not all(map(math.isinf, own)):
                raise RecipeError(
                    f"{origin}: a memory has one size for all tensors or one for each; {name} "
                    "states shared_bytes and a size of one tensor. Drop one of them."
                )
        self._holds_one_of_each("registers", self.registers)
        self._holds_one_of_each("buffer", self.buffer)

    @property
    def roofline(self) -> Roofline:
        """The peak of the array under the DRAM bandwidth."""
        cycles_per_s = 1e6 * self.clock_mhz
        return Roofline(
            self.pes * self.macs_per_pe_per_cycle * cycles_per_s,
            self.dram_bandwidth_bytes_per_cycle * cycles_per_s,
        )

    def _check_axes(self, origin: str) -> None:
        """Names that tell axes apart, loops that are named once, and an array that can exist."""
        names = [axis.name for axis in self.axes]
        for index, axis in enumerate(self.axes):
            if names.count(axis.name) > 1:
                raise RecipeError(f"{origin}: every axis has a name of its own, received {names}.")
            if re.fullmatch("axis[0-9]+", axis.name) and axis.name != f"axis{index}":
                raise RecipeError(
                    f"{origin}: axis0, axis1 and axis2 mean axes by their place, received "
                    f"{axis.name!r} for axis {index}. Choose another name."
                )
            if len(set(axis.loops)) < len(axis.loops):
                raise RecipeError(
                    f"{origin}: axis {axis.name!r} names a loop once, received {axis.loops!r}."
                )
        if self.pes > MAX_PES:
            raise RecipeError(
                f"{origin}: an array has at most {MAX_PES:,} PEs, received {self.pes:,}."
            )

    def _holds_one_of_each(self, where: str, memory: Memory) -> None:
        copies = 2 if memory.double_buffered else 1
        sizes = {
            "weight": self.word_widths.weight_bits,
            "input": self.word_widths.input_bits,
            "output": self.word_widths.partial_sum_bits,
        }
        needed = {key: bits / 8 * copies for key, bits in sizes.items()}
        held = {key: getattr(memory, f"{key}_bytes") for key in sizes}
        if memory.shared_bytes is not None:
            needed, held = {"shared": sum(needed.values())}, {"shared": memory.shared_bytes}
        for key, size in needed.items():
            if held[key] < size:
                raise RecipeError(
                    f"chip {self.name!r}: every memory holds at least one word of each tensor; "
                    f"{where}.{key}_bytes is {held[key]:g}, and {size:g} are needed."
                )

    @property
    def pes(self) -> int:
        """Processing elements of the array."""
        return math.prod(axis.size for axis in self.axes)

    @property
    def area_mm2(self) -> float:
        """Multipliers, registers, buffer and the bus between them; no control and no pads.

        A port of unlimited bandwidth has no width, and its bus is not counted.
        """
        mac_um2 = self.area.mac_um2 * self.macs_per_pe_per_cycle
        registers_um2 = self.area.register_um2_per_bit * 8 * self.registers.total_bytes
        buffer_um2 = self.area.buffer_um2_per_bit * 8 * self.buffer.total_bytes
        width = self.buffer.bandwidth_bytes_per_cycle
        per_byte = self.area.bus_um2_per_byte + self.area.bus_um2_per_byte_and_pe * self.pes
        bus_um2 = 0.0 if math.isinf(width) else width * per_byte
        return (self.pes * (mac_um2 + registers_um2) + buffer_um2 + bus_um2) / 1e6


def shipped_chips() -> tuple[str, ...]:
    """Names of the chips that come with Pliant."""
    files = [entry.name for entry in _folder().iterdir()]
    return tuple(sorted(name[: -len(".toml")] for name in files if name.endswith(".toml")))


def load_chip(name_or_path: str | Path) -> Chip:
    """A chip that ships (`"eyeriss"`), or the TOML file at a path.

    Raises:
        RecipeError: no such chip or file, or a file that does not describe one.
    """
    text = str(name_or_path)
    if not text.endswith(".toml"):
        if text not in shipped_chips():
            raise RecipeError(
                f"no chip is called {text!r} (a file's name ends in .toml). "
                f"{nearest(text, shipped_chips())}"
            )
        content = (_folder() / f"{text}.toml").read_text(encoding="utf-8")
        return parse_chip(content, default_name=text)
    try:
        content = Path(text).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"a chip is a TOML file, {text} cannot be read: {error}.") from error
    try:
        return parse_chip(content, default_name=Path(text).stem)
    except RecipeError as error:
        raise RecipeError(f"{text}: {error}") from error


def chip_toml(chip: Chip) -> str:
    """A chip as the text of a TOML file, which `parse_chip` reads back."""
    return tomli_w.dumps(_stated(asdict(chip)))


def _stated(value: Any) -> Any:
    """Without what has no end or is not there, which a file leaves out."""
    if isinstance(value, dict):
        kept = {key: _stated(one) for key, one in value.items()}
        return {key: one for key, one in kept.items() if one is not None}
    if isinstance(value, (list, tuple)):
        return [_stated(one) for one in value]
    return None if isinstance(value, float) and math.isinf(value) else value


def parse_chip(toml: str, default_name: str = "chip") -> Chip:
    """A chip from the text of its TOML file.

    Raises:
        RecipeError: no TOML, a key that is unknown or missing (the message names the nearest), or a
            value out of range.
    """
    origin = f"chip {default_name!r}"
    try:
        tree = tomllib.loads(toml)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise RecipeError(f"a chip is a TOML file, {origin} is not: {error}.") from error
    tree.setdefault("name", default_name)
    if "energy" in tree:
        tree["energy"] = energy_table(tree["energy"], f"{origin}, energy")
    chip = validated(Chip, tree, origin, "chip")
    for key, memory in (("registers", chip.registers), ("buffer", chip.buffer)):
        if math.isinf(memory.total_bytes):
            raise RecipeError(
                f"{origin}: {key} states shared_bytes, or weight_bytes, input_bytes and "
                "output_bytes."
            )
    return chip


def _folder() -> Any:
    return resources.files("pliant.accelerator") / "chips"
