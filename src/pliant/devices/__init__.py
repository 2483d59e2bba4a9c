"""Latency of networks on real machines: measured, stored in profiles, predicted from tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pliant.lazy import lazy_names

if TYPE_CHECKING:
    from pliant.devices.measure import measure_in_subprocess as measure_in_subprocess
    from pliant.devices.measured_target import MeasuredTarget as MeasuredTarget
    from pliant.devices.profile import DeviceProfile as DeviceProfile
    from pliant.devices.profile import load_profile as load_profile
    from pliant.devices.profile import profile_device as profile_device
    from pliant.devices.table import LookupTable as LookupTable
    from pliant.devices.timings import Measurement as Measurement
    from pliant.devices.timings import Settings as Settings
    from pliant.devices.timings import Timings as Timings
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "measure": ["measure_in_subprocess"],
            "profile": ["DeviceProfile", "load_profile", "profile_device"],
            "table": ["LookupTable"],
            "measured_target": ["MeasuredTarget"],
            "timings": ["Measurement", "Settings", "Timings"],
        },
    )
