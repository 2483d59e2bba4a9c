"""Regressions of latency predictors, against brute force and scikit-learn."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.linear_model import Ridge

from pliant.devices.regression import (
    Fit,
    fit_boosted_trees,
    fit_gaussian_process,
    fit_least_squares,
    fit_non_negative,
    fit_ridge,
    standardised,
    weighted_sum,
)
from pliant.devices.transfer import DESIGN_RIDGE, choose_networks, fit_transfer
from pliant.spaces.space import Space

REGRESSIONS = (
    fit_non_negative,
    fit_least_squares,
    fit_ridge,
    fit_gaussian_process,
    fit_boosted_trees,
)


@pytest.fixture
def rows() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Columns and latencies of 24 measured networks, and columns of seven others."""
    rng = np.random.default_rng(0)
    columns = rng.uniform(1, 5, size=(31, 4))
    latency = columns @ [0.5, 0.0, 1.0, 0.2] + 0.1 * columns[:, 0] * columns[:, 2]
    return columns[:24], (latency * rng.lognormal(0, 0.02, size=31))[:24], columns[24:]


def test_ridge_has_the_penalty_of_the_least_error_when_each_row_is_left_out(rows) -> None:
    columns, values, others = rows
    scaled, scale = standardised(columns)

    def left_out_error(penalty: float) -> float:
        errors = []
        for row in range(len(values)):
            rest = np.arange(len(values)) != row
            fitted = Ridge(alpha=penalty).fit(scaled[rest], values[rest])
            errors.append(fitted.predict(scaled[[row]])[0] - values[row])
        return float(np.mean(np.square(errors)))

    best = min(np.geomspace(1e-3, 1e4, 15), key=left_out_error)
    expected = Ridge(alpha=best).fit(scaled, values).predict(scale(others))
    assert fit_ridge(columns, values)(others) == pytest.approx(expected)


def test_the_gaussian_process_has_the_highest_marginal_likelihood_on_its_grid(rows) -> None:
    columns, values, others = rows
    values = values - values.mean()
    scaled, scale = standardised(columns)
    apart = ((scaled[:, None] - scaled[None]) ** 2).sum(-1)
    middle = np.median(apart[apart > 1e-9])
    lengths, noises = (0.5, 1.0, 2.0, 4.0, 16.0, 64.0), (0.001, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10)
    models = []
    for length, noise in itertools.product(lengths, noises):
        kernel = np.exp(-apart / (length * middle)) + noise * np.eye(len(values))
        signal = values @ np.linalg.solve(kernel, values) / len(values)  # the most likely one
        model = GaussianProcessRegressor(
            ConstantKernel(signal) * RBF(np.sqrt(length * middle / 2))
            + WhiteKernel(signal * noise),
            optimizer=None,
            alpha=0.0,
        )
        models.append(model.fit(scaled, values))
    best = max(models, key=lambda one: one.log_marginal_likelihood_value_)
    found = fit_gaussian_process(columns, values)(others)
    assert found == pytest.approx(best.predict(scale(others)), rel=1e-6)
    assert fit_gaussian_process(columns, values)(others[:0]).shape == (0,)


def test_disturbed_measurements_hardly_move_the_non_negative_fit(rows) -> None:
    columns, _, others = rows
    work = np.array([0.5, 0.0, 1.0, 0.2])
    latency = columns @ work
    latency[[3, 11]] *= 5  # somebody else used the machine
    assert fit_non_negative(columns, latency)(others) == pytest.approx(others @ work, rel=1e-3)
    assert fit_least_squares(columns, latency)(others) != pytest.approx(others @ work, rel=1e-3)


def test_less_work_for_more_time_gets_no_negative_coefficient(rows) -> None:
    columns, _, _ = rows
    predict = fit_non_negative(columns, 30 - 5 * columns[:, 0])
    assert (predict(np.eye(4)) >= 0).all()
    assert fit_least_squares(columns, 30 - 5 * columns[:, 0])(np.eye(4)).min() < 0


@pytest.mark.parametrize("fit", REGRESSIONS)
def test_a_prediction_depends_on_no_other_row(fit: Fit, rows) -> None:
    columns, values, others = rows
    predict = fit(columns, values)
    together = predict(others)
    alone = [predict(others[row : row + 1])[0] for row in range(len(others))]
    assert together.tolist() == pytest.approx(alone, rel=1e-12)
    assert fit(columns, values)(others).tolist() == together.tolist(), "deterministic"


def test_a_sum_is_the_same_to_the_last_bit_whatever_rows_are_beside_it() -> None:
    rng = np.random.default_rng(1)
    columns, coefficients = rng.normal(size=(257, 33)), rng.normal(size=33)
    coefficients[5] = 0.0
    whole = weighted_sum(columns, coefficients)
    assert whole == pytest.approx(columns @ coefficients)
    for row in (0, 100, 256):
        assert weighted_sum(columns[row : row + 1], coefficients)[0] == whole[row]


@pytest.mark.parametrize("fit", [fit_ridge, fit_gaussian_process])
def test_columns_that_are_equal_in_all_networks_say_nothing(fit: Fit, rows) -> None:
    columns, values, others = rows
    more, same = (np.hstack([one, np.full((len(one), 1), 1e6)]) for one in (columns, others))
    assert fit(more, values)(same) == pytest.approx(fit(columns, values)(others))
    same[:, -1] = 7.0  # nothing was measured about other values
    assert fit(more, values)(same) == pytest.approx(fit(columns, values)(others))


def test_a_device_that_is_a_power_of_known_ones_is_predicted_from_a_few_networks() -> None:
    known = np.random.default_rng(2).normal(size=(60, 3))
    latency = 2.5 * np.exp(0.7 * known.mean(axis=1))
    predict = fit_transfer(known[:6], latency[:6])
    assert predict(known[6:]) == pytest.approx(latency[6:], rel=1e-6)


def test_chosen_networks_raise_the_determinants_the_most(toy_space: Space) -> None:
    rng = np.random.default_rng(3)
    candidates = list(dict.fromkeys(toy_space.sample(rng) for _ in range(14)))
    models = [rng.normal(size=(len(candidates), columns)) for columns in (2, 3)]
    designs = [np.hstack([np.ones((len(one), 1)), standardised(one)[0]]) for one in models]
    picked: list[int] = []
    for _ in range(5):

        def information(more: int) -> float:
            total = 0.0
            for design in designs:
                seen = design[[*picked, more]]
                matrix = DESIGN_RIDGE * np.eye(design.shape[1]) + seen.T @ seen
                total += np.linalg.slogdet(matrix)[1]
            return total

        picked.append(max(set(range(len(candidates))) - set(picked), key=information))
    assert choose_networks(candidates, models, 5) == [candidates[row] for row in picked]
    assert set(choose_networks(candidates, models, 99)) == set(candidates)
