"""Which networks does a page show, and where does each stand on the chart?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

_COMPUTED = ("parameters", "macs", "peak_memory_bytes")
"""Metrics that follow from the architecture by arithmetic: nothing to predict or to measure."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One network that the page can say everything about."""

    key: str
    """Names the network within the page."""
    by: Literal["search", "random"]
    """Which search found it."""
    chosen: bool
    facts: Mapping[str, Any]
    """The network as the summary has it."""

    @property
    def architecture(self) -> str:
        """The text form."""
        return str(self.facts.get("architecture", ""))

    @property
    def command(self) -> str:
        """What to run to have this network delivered."""
        return str(self.facts.get("command") or "")

    def predicted(self, metric: str) -> float | None:
        """The cost that the search counted on, None where there is none."""
        return self._cost("predicted", metric)

    def measured(self, metric: str) -> float | None:
        """The cost on the device, None where it was not measured."""
        return self._cost("measured", metric)

    @property
    def spread_ms(self) -> float | None:
        """Spread of the measured latency."""
        return (self.facts.get("measured") or {}).get("spread_ms")

    def _cost(self, how: str, metric: str) -> float | None:
        if metric in _COMPUTED:
            return self.facts.get(metric)
        return (self.facts.get(how) or {}).get(metric)


def candidates(summary: Mapping[str, Any]) -> tuple[Candidate, ...]:
    """The chosen network if the front lacks it, the front, then the front of random search; each network once by search."""
    return tuple(_candidates(summary))


def _candidates(summary: Mapping[str, Any]) -> Iterator[Candidate]:
    chosen = summary.get("chosen") or {}
    front = list(summary.get("front") or [])
    if chosen and chosen.get("architecture") not in [
        network.get("architecture") for network in front
    ]:
        front.insert(0, chosen)
    for number, network in enumerate(front):
        is_chosen = bool(chosen) and network.get("architecture") == chosen.get("architecture")
        yield Candidate(
            f"front-{number}", "search", is_chosen, {**network, **chosen} if is_chosen else network
        )
    for number, network in enumerate(summary.get("random_front") or []):
        yield Candidate(f"random-{number}", "random", False, network)


def minimised(summary: Mapping[str, Any]) -> str:
    """The metric that accuracy is traded for."""
    return str(summary.get("minimise") or "latency_ms")
