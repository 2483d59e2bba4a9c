"""Running statistics become part of the weights, and the function stays what it was."""

from __future__ import annotations

import torch

from pliant.accuracy.calibration import calibrate
from pliant.networks.statistics import absorb_statistics
from pliant.networks.supernet import build


def test_batch_statistics_compute_what_running_ones_computed(digits_space, digits, fresh):
    generator = torch.Generator().manual_seed(0)
    published, ours = (torch.rand((40, 1, 8, 8), generator=generator) for _ in range(2))
    torch.manual_seed(0)
    network = build(digits_space, digits_space.largest(), mean=digits.mean, std=digits.std)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    calibrate(network, published)
    supernet = fresh(digits_space).train()
    missing = supernet.load_state_dict(network.state_dict(), strict=False).missing_keys
    assert all("kernel_matrices" in name for name in missing)
    images = ours**3  # darker than what the statistics are of
    expected = network(images).detach()
    before = supernet(images, digits_space.largest()).detach()
    assert (before - expected).abs().max() > 0.05 * expected.abs().max()
    absorb_statistics(supernet, network, images)
    found = supernet(images, digits_space.largest())
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
