"""What one access costs: the energy tables that ship, and tables of the user's own.

Absolute joules depend on process and layout; ranks and ratios are what these tables are good for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import ConfigDict, Field, StrictStr

from pliant.errors import RecipeError, nearest
from pliant.validation import validated

Unit = Literal["picojoule", "mac_energies"]
KIB: Final = 1024

Energy = Annotated[float, Field(ge=0, strict=True, allow_inf_nan=False)]


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
    idle_per_cycle: Energy = 0.0
    """Leakage and clock tree."""
    mac_picojoules: Annotated[float, Field(gt=0, strict=True, allow_inf_nan=False)] | None = None
    """Of a table in `mac_energies`: one MAC in picojoule, which makes joules of its ratios."""

    @property
    def picojoules(self) -> float | None:
        """One unit of the table in picojoule; None where only ratios are known."""
        return 1.0 if self.unit == "picojoule" else self.mac_picojoules

    def buffer_access(self, size_bytes: float) -> float:
        """Energy of one word at a global buffer of this size."""
        return self.buffer + self.buffer_per_kib * size_bytes / KIB


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
