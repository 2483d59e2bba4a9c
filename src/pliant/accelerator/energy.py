"""What one access costs: the energy tables that ship, and tables of the user's own.

Absolute joules depend on process and layout; ranks and ratios are what these tables are good for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from pliant.errors import RecipeError, nearest

Unit = Literal["picojoule", "mac_energies"]
UNITS: Final = ("picojoule", "mac_energies")
KIB: Final = 1024


@dataclass(frozen=True, slots=True)
class EnergyTable:
    """Energy of one access a word of `word_bits`; narrower and wider operands cost in proportion to their bits.

    The unit is picojoule, or the energy of one multiply-accumulate (`mac_energies`) where only ratios are known.
    """

    name: str
    source: str
    unit: Unit
    word_bits: int
    mac: float
    register: float
    noc: float
    """One word delivered to one processing element, or one partial sum leaving it."""
    buffer: float
    """One word read from or written to the global buffer, at size 0 where `buffer_per_kib` is set."""
    dram: float
    buffer_per_kib: float = 0.0
    """Growth of `buffer` with the buffer's size; DOSA fits SRAM this way."""
    idle_per_cycle: float = 0.0
    """Leakage and clock tree, each cycle."""

    def buffer_access(self, size_bytes: float) -> float:
        """Energy of one word at a global buffer of this size."""
        return self.buffer + self.buffer_per_kib * size_bytes / KIB


TABLES: Final = {
    "eyeriss": EnergyTable(
        "eyeriss",
        "Chen, Emer, Sze, ISCA 2016, table IV: register 1, array 2, buffer 6, DRAM 200, relative to a 16-bit MAC",
        "mac_energies", 16, mac=1.0, register=1.0, noc=2.0, buffer=6.0, dram=200.0,
    ),
    "nn-dataflow": EnergyTable(
        "nn-dataflow",
        "Gao et al., nn_dataflow, test of the Eyeriss chip (65 nm, 16 bit): MAC 2, register 1, network 4, buffer 15, DRAM 460 pJ",
        "picojoule", 16, mac=2.0, register=1.0, noc=4.0, buffer=15.0, dram=460.0,
    ),
    "dosa": EnergyTable(
        "dosa",
        "Hong et al., DOSA (MICRO 2023), energy model: MAC 0.561, register 0.487, SRAM 0.49 + 0.02513 a KiB, DRAM 100 pJ an 8-bit word;"
        " the network on chip is not in its table and counts as one register access",
        "picojoule", 8, mac=0.561, register=0.487, noc=0.487, buffer=0.49, dram=100.0, buffer_per_kib=0.02513,
    ),
    "maestro": EnergyTable(
        "maestro",
        "MAESTRO, BASE_constants.hpp: MAC 1, L1 1.68, L2 18.61, DRAM and network 0. For comparison only: off-chip traffic is free",
        "mac_energies", 8, mac=1.0, register=1.68, noc=0.0, buffer=18.61, dram=0.0,
    ),
}  # fmt: skip
_ENTRIES: Final = ("unit", "word_bits", "mac", "register", "noc", "buffer", "dram")


def energy_table(entries: Mapping[str, Any]) -> EnergyTable:
    """A table from the `[energy]` part of a chip file: `table = "eyeriss"`, with or without entries that replace its own.

    Raises:
        RecipeError: an entry is missing, unknown or negative, the unit is unknown, or no table has this name.
    """
    given = dict(entries)
    name = given.pop("table", None)
    if name is not None:
        if name not in TABLES:
            raise RecipeError(f"energy: no table is called {name!r}. {nearest(str(name), TABLES)}")
        given = {key: getattr(TABLES[name], key) for key in EnergyTable.__slots__} | given
    if missing := [key for key in _ENTRIES if key not in given]:
        raise RecipeError(
            f"energy: an energy table states {', '.join(_ENTRIES)}; {missing[0]!r} is missing."
        )
    if unknown := [key for key in given if key not in EnergyTable.__slots__]:
        raise RecipeError(
            f"energy: unknown key {unknown[0]!r}. {nearest(unknown[0], EnergyTable.__slots__)}"
        )
    if given["unit"] not in UNITS:
        raise RecipeError(f"energy: unit is one of {', '.join(UNITS)}, received {given['unit']!r}.")
    texts = {"name", "source", "unit"}
    for key, value in given.items():
        if key not in texts and (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not 0 <= value < float("inf")
        ):
            raise RecipeError(f"energy: {key} is a number from 0 up, received {value!r}.")
    return EnergyTable(**{"name": "own", "source": "stated by the user"} | given)
