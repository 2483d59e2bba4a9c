"""Accuracy of a supernet's sub-networks with shared weights: extract, calibrate, evaluate."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pliant.accuracy.calibration import calibrate, calibration_images
from pliant.accuracy.evaluation import pixels, top1
from pliant.data.splits import Split
from pliant.metrics import Accuracy, Failed, Quality
from pliant.networks.plain import Network
from pliant.networks.supernet import Supernet
from pliant.spaces.architecture import Architecture
from pliant.training.allocator import trim_freed_memory
from pliant.training.schedule import Precision


class SupernetEstimator:
    """The accuracy estimator of a supernet, and the only way to a usable sub-network.

    Args:
        supernet: trained weights.
        train: whose images calibrate; a fixed, seeded subset.
        validation: whose images are counted, never those of the test split.
        images: of the validation split used for one estimate; all of them if it has fewer.
        precision: of estimates; bf16 changes them by about a tenth of a point and takes half the
            time on a CPU that has it. Networks that are validated or delivered are always
            calibrated and evaluated in fp32.
        seed: of both subsets.
    """

    def __init__(
        self,
        supernet: Supernet,
        train: Split,
        validation: Split,
        *,
        images: int = 2500,
        precision: Precision = "fp32",
        seed: int = 0,
    ) -> None:
        self.supernet = supernet.eval()
        rng = np.random.default_rng(seed)
        size = supernet.space.image_size
        # Not sorted: a folder's images are in the order of their classes, and the statistics of a
        # batch of one class miss what differs between classes.
        subset = rng.permutation(len(train))[: calibration_images(size)]
        self.calibration_images = pixels(train.batch(subset)[0]).to(
            next(supernet.parameters()).device
        )
        self._quick_images = self.calibration_images[: calibration_images(size, quick=True)]
        self.validation = validation
        self._autocast = torch.autocast(
            self.calibration_images.device.type, torch.bfloat16, enabled=precision == "bf16"
        )
        self._quick = validation.subset(np.sort(rng.permutation(len(validation))[:images]))
        self._known: dict[Architecture, Accuracy] = {}

    def network(self, architecture: Architecture) -> Network:
        """The sub-network as a plain network, calibrated: ready to evaluate and export."""
        return self._calibrated(architecture, self.calibration_images)

    def _calibrated(self, architecture: Architecture, images: Tensor) -> Network:
        with torch.random.fork_rng(devices=[]):  # modules draw weights that are then replaced
            network = self.supernet.extract(architecture)
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        calibrate(network, images)
        trim_freed_memory()  # every network has activations of other sizes
        return network

    def estimate(self, architectures: Sequence[Architecture]) -> list[Quality]:
        """Top-1 on the validation subset, each architecture evaluated once ever."""
        return [self._estimate(architecture) for architecture in architectures]

    def _estimate(self, architecture: Architecture) -> Quality:
        if architecture not in self._known:
            with self._autocast:
                network = self._calibrated(architecture, self._quick_images)
                if not all(
                    bool(tensor.isfinite().all()) for tensor in network.state_dict().values()
                ):
                    return Failed("the network's weights or BatchNorm statistics are not finite")
                self._known[architecture] = top1(network, self._quick)
        return self._known[architecture]

    def validate(self, architecture: Architecture) -> Accuracy:
        """Top-1 on the whole validation split."""
        return top1(self.network(architecture), self.validation)
