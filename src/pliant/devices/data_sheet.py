"""What a data sheet says of a device: peak arithmetic by precision, and memory bandwidth.

A data sheet is a TOML file with the unit in every key. A few ship with Pliant
(`load_sheet("raspberry-pi-4")`); `load_sheet("mine.toml")` reads your own. The measured roofs of a
machine (`pliant.devices.roofs`) have the same form, with the bandwidths of the caches.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, ClassVar

import tomli_w
from pydantic import ConfigDict, Field, StrictStr

from pliant.errors import RecipeError, nearest
from pliant.files import write_atomically
from pliant.validation import validated
from pliant.workload.layer import Workload
from pliant.workload.roofline import MemoryLevel, Roofline

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# Strict, since a boolean is no number. The most is beyond every device of today, so that a number
# in bytes or operations per second, or in bytes, is not taken for one of the unit in the key.
Rate = Annotated[float, Field(gt=0, le=1e6, strict=True)]
Gops = Annotated[float, Field(gt=0, le=1e8, strict=True)]
KiloBytes = Annotated[float, Field(gt=0, le=1e7, strict=True)]

PRECISIONS = {32: ("fp32",), 16: ("fp16", "bf16"), 8: ("int8",)}
"""Names of the precisions of each width in bits."""


@dataclass(frozen=True, slots=True)
class Cache:
    """One cache and its bandwidth, reads and writes together."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    name: StrictStr
    capacity_kb: KiloBytes
    """In multiples of 1024 bytes."""
    bandwidth_gb_per_s: Rate


@dataclass(frozen=True, slots=True)
class PeakGops:
    """Peak arithmetic in 1e9 operations per second, two of them per multiply-accumulate."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    fp32: Gops | None = None
    fp16: Gops | None = None
    bf16: Gops | None = None
    int8: Gops | None = None

    @property
    def stated(self) -> dict[str, float]:
        """The peaks that are stated, by precision."""
        return {name: peak for name, peak in asdict(self).items() if peak is not None}


@dataclass(frozen=True, slots=True)
class DataSheet:
    """A device by a few numbers, and where they come from.

    Args:
        name: of the device.
        source: the document, or how the numbers were measured.
        bandwidth_gb_per_s: of its memory.
        peak_gops: by precision.
        caches: smallest first.
        power_w: while it computes; energy is not predicted without it.

    Raises:
        RecipeError: no peak is stated, or the caches are not in order.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    name: StrictStr
    source: Annotated[str, Field(min_length=1, strict=True)]
    bandwidth_gb_per_s: Rate
    peak_gops: PeakGops
    caches: tuple[Cache, ...] = field(default=())
    power_w: Rate | None = None

    def __post_init__(self) -> None:
        if not self.peak_gops.stated:
            raise RecipeError(
                f"data sheet {self.name!r}: peak_gops states at least one of fp32, fp16, bf16,"
                " int8; received none."
            )
        sizes = [cache.capacity_kb for cache in self.caches]
        if sorted(set(sizes)) != sizes:
            raise RecipeError(
                f"data sheet {self.name!r}: caches are in order, smallest first, received"
                f" {sizes} kB."
            )

    def roofline(self, bits: int) -> Roofline:
        """The roofs for weights and activations of so many bits.

        Raises:
            RecipeError: the sheet states no peak of this precision.
        """
        names = PRECISIONS.get(bits, ())
        stated = self.peak_gops.stated
        peaks = [stated[name] for name in names if name in stated]
        if not peaks:
            raise RecipeError(
                f"the roofs of {self.name} are known for {', '.join(stated)}, received a network"
                f" of {bits} bits. Add its peak to the data sheet, or name another one."
            )
        caches = []
        for cache in self.caches:
            level = MemoryLevel(
                cache.name, 1024 * cache.capacity_kb, 1e9 * cache.bandwidth_gb_per_s
            )
            caches.append(level)
        # Two operations make one multiply-accumulate.
        return Roofline(1e9 * max(peaks) / 2, 1e9 * self.bandwidth_gb_per_s, tuple(caches))

    def with_convolutions(self, gops: float | None) -> DataSheet:
        """The sheet with the fp32 peak that convolutions of a device profile reached, if higher.

        Args:
            gops: 1e9 operations per second; None where a profile has none.
        """
        peak = self.peak_gops.fp32
        if gops is None or peak is None or gops <= peak:
            return self
        return replace(
            self,
            source=f"{self.source}; fp32 by the convolutions of its profile",
            peak_gops=replace(self.peak_gops, fp32=gops),
        )


def workload_bits(workload: Workload) -> int:
    """Width of the operands of most multiply-accumulates of a network; 32 without any."""
    macs: dict[int, int] = {}
    for layer in workload.layers:
        macs[layer.bits] = macs.get(layer.bits, 0) + layer.macs
    return max(macs, key=lambda bits: macs[bits]) if any(macs.values()) else 32


def shipped_sheets() -> tuple[str, ...]:
    """Names of the data sheets that ship, in alphabetical order."""
    names = [file.name for file in _folder().iterdir() if file.name.endswith(".toml")]
    return tuple(sorted(name.removesuffix(".toml") for name in names))


def is_sheet(name: str) -> bool:
    """Whether a name means a data sheet: one that ships, or a TOML file with peaks or bandwidth.

    Raises:
        RecipeError: a .toml file that cannot be read, or says nothing; it may be meant as a chip.
    """
    if not name.endswith(".toml"):
        return name in shipped_sheets()
    try:
        tree = tomllib.loads(Path(name).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RecipeError(
            f"a chip or a data sheet is a TOML file, {name} cannot be read: {reason}."
        ) from None
    if not tree:
        raise RecipeError(
            f"{name} is empty; a data sheet states name, source, bandwidth_gb_per_s and peak_gops, "
            "a chip its array and memories. Name another file."
        )
    return "peak_gops" in tree or "bandwidth_gb_per_s" in tree


def load_sheet(name_or_path: str | Path) -> DataSheet:
    """A data sheet that ships (`"raspberry-pi-4"`), or the TOML file at a path.

    Raises:
        RecipeError: no such sheet or file, or a file that does not describe one.
    """
    text = str(name_or_path)
    if text.endswith(".toml"):
        try:
            content = Path(text).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(
                f"a data sheet is a TOML file, {text} cannot be read: {error}."
            ) from error
    elif text in shipped_sheets():
        content = (_folder() / f"{text}.toml").read_text(encoding="utf-8")
    else:
        raise RecipeError(
            f"no data sheet is called {text!r} (a file's name ends in .toml). "
            f"{nearest(text, shipped_sheets())}"
        )
    return parse_sheet(content, f"data sheet {Path(text).stem!r}")


def parse_sheet(toml: str, origin: str = "data sheet") -> DataSheet:
    """A data sheet from the text of its TOML file.

    Args:
        toml: the text.
        origin: file or name, for messages.

    Raises:
        RecipeError: no TOML, a key that is unknown or missing, or a value out of range.
    """
    try:
        tree = tomllib.loads(toml)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise RecipeError(f"a data sheet is a TOML file, {origin} is not: {error}.") from error
    return validated(DataSheet, tree, origin, "data sheet")


def save_sheet(sheet: DataSheet, path: Path) -> None:
    """Write a data sheet as TOML, replacing an old file at once."""
    tree = asdict(sheet)
    tree["peak_gops"] = sheet.peak_gops.stated
    if sheet.power_w is None:
        del tree["power_w"]
    write_atomically(path, tomli_w.dumps(tree))


def _folder() -> Any:
    return resources.files("pliant.devices") / "sheets"
