"""Running statistics become part of the weights, and the function stays what it was."""

from __future__ import annotations

import torch

from pliant.accuracy.calibration import calibrate
from pliant.networks.statistics import absorb_statistics
from pliant.networks.supernet import Supernet, build


def test_unknown_statistics_begin_with_the_first_training_batch(toy_space):
    """An extracted network that is only trained further has running averages, and no NaN."""
    supernet = Supernet(toy_space, mean=[0.4] * 3, std=[0.2] * 3)
    network = supernet.extract(toy_space.largest())
    norms = [one for one in network.modules() if isinstance(one, torch.nn.BatchNorm2d)]
    assert all(bool(norm.running_var.isnan().all()) for norm in norms)
    seen: list[torch.Tensor] = []
    norms[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    for seed in (1, 2):
        network.train()(torch.rand((4, 3, 8, 8), generator=torch.Generator().manual_seed(seed)))
    (mean, later), (variance, later_variance) = (
        [measure(batch, (0, 2, 3)) for batch in seen] for measure in (torch.mean, torch.var)
    )
    torch.testing.assert_close(norms[0].running_mean, 0.9 * mean + 0.1 * later)
    torch.testing.assert_close(norms[0].running_var, 0.9 * variance + 0.1 * later_variance)
    assert network.eval()(torch.rand((1, 3, 8, 8))).isfinite().all()


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
