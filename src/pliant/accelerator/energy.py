"""What one access costs: the energy tables that ship, and tables of the user's own.

Absolute joules depend on process and layout; ranks and ratios are what these tables are good for.

A table may let energies follow the sizes of the hardware, so that what is smaller or narrower is
cheaper:

- Memories, as X. Yang et al. tabulate them ("Interstellar: Using Halide's Scheduling Language to
  Analyze DNN Accelerators", ASPLOS 2020, arXiv:1809.04070, table 3): each doubling of a register
  file doubles the energy of its access, each doubling of a global buffer makes it 1.5 times.
- The bus between buffer and array draws power in proportion to its width and to the PEs that hang
  on it, as in MAESTRO (H. Kwon et al., MICRO 2019, doi:10.1145/3352460.3358252; its code's
  DSE_cost-database.hpp): 0.8/1000 14.662 milliwatts a byte and PE, where a MAC draws 1.2223.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import ConfigDict, Field, StrictStr

from pliant.errors import RecipeError, nearest
from pliant.validation import validated

Unit = Literal["picojoule", "mac_energies"]
KIB: Final = 1024

Energy = Annotated[float, Field(ge=0, strict=True, allow_inf_nan=False)]
Bytes = Annotated[float, Field(gt=0, strict=True, allow_inf_nan=False)]
Growth = Annotated[float, Field(ge=1, strict=True, allow_inf_nan=False)]


@dataclass(frozen=True, slots=True)
class EnergyTable:
    """Energy of one access to a word of `word_bits`; other widths cost in proportion to their bits.

    The unit is picojoule, or the energy of one multiply-accumulate (`mac_energies`) where only
    ratios are known.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    name: StrictStr
    source: StrictStr
    unit: Unit
    word_bits: Annotated[int, Field(ge=1, strict=True)]
    mac: Energy
    register: Energy
    noc: Energy
    """One word delivered to one PE, or one partial sum leaving it."""
    buffer: Energy
    """One word of the global buffer, read or written; at size 0 where `buffer_per_kib` is set."""
    dram: Energy
    buffer_per_kib: Energy = 0.0
    """Growth of `buffer` with the buffer's size, as DOSA fits SRAM."""
    register_growth: Growth = 1.0
    """By which `register` is multiplied where the registers of a PE double; 1 for any size."""
    register_at_bytes: Bytes | None = None
    """Size of the registers to which `register` belongs; needed where it grows."""
    buffer_growth: Growth = 1.0
    """By which `buffer` is multiplied where the global buffer doubles; 1 for any size."""
    buffer_at_bytes: Bytes | None = None
    """Size of the buffer to which `buffer` belongs; needed where it grows."""
    idle_per_cycle: Energy = 0.0
    """Leakage and clock tree."""
    bus_per_cycle: Energy = 0.0
    """Idling of the bus between buffer and array, for each byte of its width and each PE."""
    mac_picojoules: Annotated[float, Field(gt=0, strict=True, allow_inf_nan=False)] | None = None
    """Of a table in `mac_energies`: one MAC in picojoule, which makes joules of its ratios."""

    def __post_init__(self) -> None:
        for name in ("register", "buffer"):
            if getattr(self, f"{name}_growth") > 1 and getattr(self, f"{name}_at_bytes") is None:
                raise RecipeError(
                    f"energy table {self.name!r}: an energy that grows with the size belongs to one"
                    f" size; {name}_growth is {getattr(self, f'{name}_growth'):g}, and no "
                    f"{name}_at_bytes is stated."
                )

    @property
    def picojoules(self) -> float | None:
        """One unit of the table in picojoule; None where only ratios are known."""
        return 1.0 if self.unit == "picojoule" else self.mac_picojoules

    def register_access(self, size_bytes: float) -> float:
        """Energy of one word at registers of this size, of one PE."""
        return self.register * _grown(self.register_growth, size_bytes, self.register_at_bytes)

    def buffer_access(self, size_bytes: float) -> float:
        """Energy of one word at a global buffer of this size."""
        grown = self.buffer * _grown(self.buffer_growth, size_bytes, self.buffer_at_bytes)
        return grown + self.buffer_per_kib * size_bytes / KIB

    def idle(self, pes: int, port_bytes_per_cycle: float) -> float:
        """Energy of one cycle in which nothing moves.

        Args:
            pes: of the array.
            port_bytes_per_cycle: width of the bus between buffer and array; one without end has no
                stated width and is not charged.
        """
        width = 0.0 if math.isinf(port_bytes_per_cycle) else port_bytes_per_cycle
        return self.idle_per_cycle + self.bus_per_cycle * width * pes


def _grown(growth: float, size_bytes: float, at_bytes: float | None) -> float:
    """The factor of an energy at a size, over that at the size that it belongs to."""
    if growth == 1.0 or at_bytes is None:
        return 1.0
    return (size_bytes / at_bytes) ** math.log2(growth)


TABLES: Final = {
    "eyeriss": EnergyTable(
        "eyeriss",
        "Chen, Emer, Sze, Eyeriss: A Spatial Architecture for Energy-Efficient Dataflow for CNNs, "
        "ISCA 2016, doi:10.1109/ISCA.2016.40, table IV: register 1, array 2, buffer 6, DRAM 200, "
        "relative to a 16-bit MAC; that is 2 pJ in 65 nm in nn_dataflow's test of this chip",
        "mac_energies", 16, mac=1.0, register=1.0, noc=2.0, buffer=6.0, dram=200.0,
        mac_picojoules=2.0,
    ),
    "nn-dataflow": EnergyTable(
        "nn-dataflow",
        "Gao et al., TETRIS: Scalable and Efficient Neural Network Acceleration with 3D Memory, "
        "ASPLOS 2017, doi:10.1145/3037697.3037702; their tool nn_dataflow, test of the Eyeriss "
        "chip (65 nm, 16 bit): MAC 2, register 1, network 4, buffer 15, DRAM 460 pJ",
        "picojoule", 16, mac=2.0, register=1.0, noc=4.0, buffer=15.0, dram=460.0,
    ),
    "dosa": EnergyTable(
        "dosa",
        "Hong et al., DOSA: Differentiable Model-Based One-Loop Search for DNN Accelerators, "
        "MICRO 2023, doi:10.1145/3613424.3623797: MAC 0.561, register 0.487, SRAM 0.49 + 0.02513 "
        "per KiB, DRAM 100 pJ per 8-bit word; the network on chip is not in its table and counts "
        "as one register access",
        "picojoule", 8, mac=0.561, register=0.487, noc=0.487, buffer=0.49, dram=100.0,
        buffer_per_kib=0.02513,
    ),
    "interstellar": EnergyTable(
        "interstellar",
        "Yang et al., Interstellar: Using Halide's Scheduling Language to Analyze DNN "
        "Accelerators, ASPLOS 2020, arXiv:1809.04070, table 3 (28 nm, 16 bit): MAC 0.075, register "
        "file of 512 bytes 0.96 and twice as much per doubling, SRAM of 128 KiB 13.5 and 1.5 times "
        "as much per doubling, hop 0.035, DRAM 200 pJ; power of the bus relative to a MAC as in "
        "MAESTRO, doi:10.1145/3352460.3358252",
        "picojoule", 16, mac=0.075, register=0.96, noc=0.035, buffer=13.5, dram=200.0,
        register_growth=2.0, register_at_bytes=512.0,
        buffer_growth=1.5, buffer_at_bytes=131072.0,
        bus_per_cycle=0.075 * 0.8e-3 * 14.662 / 1.2223,
    ),
    "maestro": EnergyTable(
        "maestro",
        "Kwon et al., Understanding Reuse, Performance, and Hardware Cost of DNN Dataflows: A "
        "Data-Centric Approach (MAESTRO), MICRO 2019, doi:10.1145/3352460.3358252; "
        "BASE_constants.hpp of its code: MAC 1, L1 1.68, L2 18.61, DRAM and network 0. For "
        "comparison only: off-chip traffic is free",
        "mac_energies", 8, mac=1.0, register=1.68, noc=0.0, buffer=18.61, dram=0.0,
    ),
}  # fmt: skip


def energy_table(entries: Any, origin: str = "energy") -> EnergyTable:
    """A table from the `[energy]` part of a chip file.

    Args:
        entries: the entries of a table; with `table = "eyeriss"`, those that replace its own.
        origin: whose table it is, for messages.

    Raises:
        RecipeError: an entry is missing, unknown or out of range, or no table has this name.
    """
    if not isinstance(entries, Mapping):
        raise RecipeError(f"{origin}: a table of keys and values is needed, received {entries!r}.")
    given = dict(entries)
    name = given.pop("table", None)
    if name is None:
        base: dict[str, Any] = {"name": "own", "source": "stated by the user"}
    elif name in TABLES:
        base = asdict(TABLES[name])
    else:
        raise RecipeError(f"{origin}: no table is called {name!r}. {nearest(str(name), TABLES)}")
    return validated(EnergyTable, base | given, origin, "energy table")
