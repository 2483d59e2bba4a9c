"""The delivered network under the roofs of its target: what each of its layers waits for."""

from __future__ import annotations

from dataclasses import replace

from pliant.accelerator.chip_target import ChipTarget
from pliant.devices.data_sheet import DataSheet, load_sheet, save_sheet, workload_bits
from pliant.devices.data_sheet_target import DataSheetTarget
from pliant.devices.layer_times import timed_roofline
from pliant.devices.measured_target import MeasuredTarget
from pliant.devices.roofs import FEW_ROUNDS, measure_roofs, roofs_name
from pliant.errors import EncodingError, RecipeError
from pliant.report.summary import RooflineFacts
from pliant.runs.deliver import Delivered
from pliant.runs.session import Session
from pliant.workload import Workload, onnx_workload, with_bits
from pliant.workload.roofline import NetworkRoofline, layer_bounds

ROOFS = "roofs.toml"
"""The measured roofs of this machine, in the directory of a run."""


def delivered_roofline(session: Session, delivered: Delivered) -> RooflineFacts | None:
    """The delivered file under the roofs of the session's target.

    On this machine under ONNX Runtime the roofs are measured, once per run, and the layers timed.

    Args:
        session: of the run.
        delivered: the network, in the session's precision.

    Returns:
        None where the target has no roofs (one of the user's own, or another machine), where the
        file has operators without a cost, or where the roofs lack its precision.
    """
    path = delivered.folder / delivered.file(session.precision).name
    batch = session.run.recipe.target.batch
    if isinstance(session.target, MeasuredTarget):
        batch = session.target.profile.batch
    try:
        workload = onnx_workload(path, sizes={"N": batch})
        return _placed(session, workload, path.read_bytes())
    except (EncodingError, RecipeError):
        return None


def _placed(session: Session, workload: Workload, model: bytes) -> RooflineFacts | None:
    target, name = session.target, "the delivered network"
    if isinstance(target, ChipTarget):
        chip = target.chip
        narrow = with_bits(workload.layers, chip.word_widths.input_bits)
        bounds = layer_bounds(replace(workload, layers=narrow), chip.roofline)
        source = chip.source or "its description"
        return RooflineFacts(chip.name, source, chip.roofline, NetworkRoofline(name, bounds))
    if isinstance(target, DataSheetTarget):
        sheet = target.sheet
        roofline = sheet.roofline(workload_bits(workload))
        network = NetworkRoofline(name, layer_bounds(workload, roofline))
    elif isinstance(target, MeasuredTarget) and target.can_measure:
        settings = target.profile.settings
        if settings.runtime != "onnxruntime":
            return None
        sheet = _measured_roofs(session, settings.threads)
        sheet = sheet.with_convolutions(target.profile.convolution_peak_gflops)
        network, roofline = timed_roofline(name, workload, sheet, model, settings)
    else:
        return None
    return RooflineFacts(sheet.name, sheet.source, roofline, network)


def _measured_roofs(session: Session, threads: int) -> DataSheet:
    """The roofs of this machine, as the run keeps them or measured now."""
    path = session.run.folder / ROOFS
    if path.is_file():
        kept = load_sheet(path)
        if kept.name == roofs_name(threads):
            return kept
    sheet = measure_roofs(threads, rounds=FEW_ROUNDS)
    save_sheet(sheet, path)
    return sheet
