"""Tables of figures against the explicit updates they come from."""

from __future__ import annotations

import numpy as np
import pytest
from plot_runs import DEGENERATE, Run

from spectraledge.errors import DataError, SettingError
from spectraledge.plots import (
    block_map_table,
    gap_position_table,
    health_table,
    metrics_table,
    norms_table,
    null_table,
    overlaps_table,
    ratio_profile_table,
    singular_values_table,
    widths_table,
)
from spectraledge.plots.overlaps import null_overlaps
from spectraledge.theory.surrogates import fit_null

W = 10
RUN = Run(drift=0.7)
# Gram eigenvalues are exact to about 1e-15 of the largest, so that roots well above the floor are to 1e-12.
CLOSE = {"rtol": 1e-9, "atol": 1e-12}


def windows() -> np.ndarray:
    return np.stack([RUN.updates[t - W + 1 : t + 1] for t in range(W - 1, RUN.n_updates)])


def singular_values() -> np.ndarray:
    return np.linalg.svd(windows(), compute_uv=False)


def test_singular_values_are_those_of_the_updates() -> None:
    table = singular_values_table(RUN.recording(), window=W)
    np.testing.assert_allclose(table["singular_values"], singular_values(), **CLOSE)
    np.testing.assert_array_equal(table["steps"], RUN.steps[W - 1 :])
    assert table["resolved"].all()
    assert "n = 39 windows" in table["facts"]
    assert "W = 10" in table["facts"]


def test_a_stride_and_a_block_are_taken_at_their_word() -> None:
    table = singular_values_table(RUN.recording(), window=W, stride=2, block="second")
    rows = RUN.updates[:, 100:].reshape(24, 2, 200).sum(axis=1)
    expected = np.stack([np.linalg.svd(rows[t - W + 1 : t + 1], compute_uv=False) for t in range(W - 1, 24)])
    np.testing.assert_allclose(table["singular_values"], expected, **CLOSE)
    assert "rows of 2 updates (20 steps each) · block second" in table["facts"]


def test_the_null_is_that_of_the_same_norms() -> None:
    spectra = RUN.recording().spectra(W)
    null = null_table(spectra, n_windows=5, n_draws=99, seed=3)
    np.testing.assert_array_equal(null["steps"], spectra.steps[null["index"]])
    for i, n in enumerate(null["index"]):
        model = fit_null("norm_matched", spectra.gram[n], spectra.p_eff[n], spectra.row_correlation[n])
        grams = model.sample(99, np.random.default_rng(3))
        sigma = np.sqrt(np.linalg.eigvalsh(grams)[:, ::-1])
        np.testing.assert_allclose(null["sigma_low"][i], np.quantile(sigma, 0.05, axis=0), rtol=1e-12)
        np.testing.assert_allclose(null["sigma_high"][i], np.quantile(sigma, 0.95, axis=0), rtol=1e-12)
        ratio = sigma[:, :-1] / sigma[:, 1:]
        np.testing.assert_allclose(null["ratio_median"][i], np.median(ratio, axis=0), rtol=1e-12)
        share = (sigma[:, 1] ** 2 - sigma[:, 2] ** 2) / (sigma**2).sum(axis=1)
        np.testing.assert_allclose(null["g23_share_high"][i], np.quantile(share, 0.95), rtol=1e-12)


def test_noise_stays_in_its_band_and_drift_leaves_it() -> None:
    inside = []
    for seed in range(60):
        spectra = Run(n_updates=20, seed=seed, metrics=False, decay=False).recording().spectra(W)
        null = null_table(spectra, n_windows=2)
        inside.append(null["sigma_low"][-1, 0] <= spectra.singular_values[-1, 0] <= null["sigma_high"][-1, 0])
    # 60 independent windows at 90 %: sd 0.039; P_eff is known to some 10 %, so that 4 sd either way are allowed.
    assert 0.74 <= np.mean(inside) <= 1.0
    table = singular_values_table(RUN.recording(), window=W)
    assert (table["singular_values"][[0, -1], 0] > table["null_high"][[0, -1], 0]).all()


def test_windows_across_a_seam_have_neither_values_nor_bands() -> None:
    table = singular_values_table(Run(seam_at=24).recording(), window=W)
    crossing = (table["steps"] > 240) & (table["steps"] < 340)
    np.testing.assert_array_equal(np.isnan(table["singular_values"][:, 0]), crossing)
    np.testing.assert_array_equal(np.isnan(table["null_low"][:, 0]), crossing)  # 39 windows, each with its null
    assert "30 windows, 9 without all products" in table["facts"]


def test_without_effective_dimension_there_is_no_band_and_a_reason() -> None:
    table = singular_values_table(DEGENERATE["no P_eff"].recording(), window=5)
    assert np.isnan(table["null_low"]).all()
    assert "P_eff" in table["note"]
    assert np.isfinite(table["singular_values"]).all()
    assert "No p-value" in gap_position_table(DEGENERATE["no P_eff"].recording(), window=5)["note"]


def test_ratio_profile_is_the_median_over_windows() -> None:
    table = ratio_profile_table(RUN.recording(), window=W)
    sigma = singular_values()
    ratio = sigma[:, :-1] / sigma[:, 1:]
    np.testing.assert_array_equal(table["position"], np.arange(1, W))
    np.testing.assert_allclose(table["median"], np.median(ratio, axis=0), **CLOSE)
    np.testing.assert_allclose(table["low"], np.quantile(ratio, 0.05, axis=0), **CLOSE)
    assert (table["null_low"] <= table["null_median"]).all()
    assert table["median"][0] > table["null_high"][0]  # the drift


def test_positions_by_every_rule_and_the_p_values_of_the_recording() -> None:
    recording = RUN.recording()
    table, spectra = gap_position_table(recording, window=W, seed=4), recording.spectra(W)
    sigma = singular_values()
    ratio = sigma[:, :-1] / sigma[:, 1:]
    np.testing.assert_array_equal(table["plain_position"], 1 + np.argmax(ratio, axis=1))
    np.testing.assert_array_equal(table["guarded_position"], 1 + np.argmax(ratio[:, : W // 2], axis=1))
    share = sigma[:, :-1] / sigma.sum(axis=1, keepdims=True)
    np.testing.assert_array_equal(table["weighted_position"], 1 + np.argmax(share * ratio, axis=1))
    np.testing.assert_array_equal(table["p_value"], spectra.gap("guarded", seed=4).p_value)
    assert "guarded k* = 1 in 39 of 39" in table["facts"]


def test_widths_in_their_units() -> None:
    table, sigma = widths_table(RUN.recording(), window=W), singular_values()
    lam = sigma**2
    np.testing.assert_allclose(table["trace"], lam.sum(axis=1), **CLOSE)
    np.testing.assert_allclose(table["g23"], lam[:, 1] - lam[:, 2], rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(table["g23_share"], (lam[:, 1] - lam[:, 2]) / lam.sum(axis=1), rtol=1e-6, atol=1e-12)
    rows = windows() / np.linalg.norm(windows(), axis=2, keepdims=True)
    unit = np.linalg.svd(rows, compute_uv=False) ** 2
    np.testing.assert_allclose(table["g23_row_share"], (unit[:, 1] - unit[:, 2]) / W, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(table["width"], sigma[:, 0] - sigma[:, 1], **CLOSE)  # the drift: k* = 1
    np.testing.assert_allclose(table["eigen_width"], lam[:, 0] - lam[:, 1], **CLOSE)


def test_overlaps_are_those_of_the_directions() -> None:
    table = overlaps_table(RUN.recording(), window=W)
    v = np.linalg.svd(windows(), full_matrices=False)[2]
    for which, lag in (("near", 1), ("far", W)):
        expected = np.abs(np.einsum("njp,njp->nj", v[lag:, :3], v[:-lag, :3]))
        # Directions of crowded modes are exact to the rounding of sigma^2 over their gap, some 1e-16 / 1e-4.
        np.testing.assert_allclose(table[f"{which}_overlap"], expected, atol=1e-8)
        np.testing.assert_array_equal(table[f"{which}_steps"], RUN.steps[W - 1 + lag :])
    assert table["near_null_low"].shape == (24, 3)
    assert table["note"] == ""
    assert np.median(table["far_overlap"][:, 0]) > table["far_null_high"][:, 0].max()


def test_windows_that_share_rows_overlap_in_noise() -> None:
    norms, rho = np.ones(2 * W), np.eye(2 * W)[0]
    draws = [null_overlaps(norms[: W + 1], 1e8, rho, W, 1, 3, np.random.default_rng(s))[1] for s in range(8)]
    # Simulated white noise at P = 1e8 has mean overlaps of .795, .646, .568. Of 792 pairs of windows the median
    # is known to about .02; medians lie above these means, the distributions being skewed to the left.
    assert np.all(np.mean(draws, axis=0) > [0.78, 0.62, 0.53])
    assert np.all(np.mean(draws, axis=0) < [0.95, 0.86, 0.78])
    far = null_overlaps(norms, 1e8, rho, W, W, 3, np.random.default_rng(0))
    assert far[2].max() < 1e-3  # cosines of disjoint noise are of order 1 / sqrt(1e8)


def test_overlaps_say_which_lag_is_missing() -> None:
    table = overlaps_table(Run(lags=10).recording(), window=W)
    assert len(table["near_steps"])
    assert not len(table["far_steps"])
    assert "Lag 10 is not recorded: it needs lags=19, and there are 10." in table["note"]


def test_norms_and_the_share_of_weight_decay() -> None:
    table = norms_table(RUN.recording(), window=W)
    energy = (RUN.updates**2).sum(axis=1)
    np.testing.assert_allclose(table["update_norm"], np.sqrt(energy), **CLOSE)
    np.testing.assert_allclose(table["theta_norm"], np.linalg.norm(RUN.theta, axis=1), **CLOSE)
    np.testing.assert_allclose(table["decay_share"], (RUN.decay_part * RUN.updates).sum(axis=1) / energy, **CLOSE)
    ratio = np.linalg.norm(RUN.decay_part, axis=1) / np.sqrt(energy)
    np.testing.assert_allclose(table["decay_ratio"], ratio, **CLOSE)
    v1 = np.linalg.svd(windows(), full_matrices=False)[2][:, 0]
    theta = RUN.theta[W - 1 :]
    cosine = np.abs((v1 * theta).sum(axis=1)) / np.linalg.norm(theta, axis=1)
    np.testing.assert_allclose(table["theta_cosine"], cosine, atol=1e-9)
    bare = norms_table(Run(decay=False).recording(), window=W)
    assert np.isnan(bare["decay_share"]).all()
    assert "decay_products=True" in bare["note"]
    narrow = norms_table(Run(lags=4).recording(), window=W)
    np.testing.assert_allclose(narrow["update_norm"], np.linalg.norm(Run().updates, axis=1), **CLOSE)
    assert narrow["note"].startswith("No |cos(v₁, θ)|: stride 1 x window 10")


def test_blocks_share_the_energy() -> None:
    table = block_map_table(RUN.recording(), window=W)
    assert table["blocks"] == ["first", "second"]
    np.testing.assert_allclose(table["share"].sum(axis=0), 1.0, rtol=1e-12)
    energy = (windows()[:, :, :100] ** 2).sum(axis=(1, 2)) / (windows() ** 2).sum(axis=(1, 2))
    np.testing.assert_allclose(table["share"][0], energy, **CLOSE)
    sigma = np.linalg.svd(windows()[:, :, 100:], compute_uv=False)
    np.testing.assert_allclose(table["ratio"][1], sigma[:, 0] / sigma[:, 1], **CLOSE)


def test_many_blocks_are_cut_to_the_largest() -> None:
    run = Run(n_updates=12, blocks={f"b{i}": 6 for i in range(50)})
    table = block_map_table(run.recording(), window=W)
    assert len(table["blocks"]) == 40
    assert "40 blocks with the largest share of 50" in table["note"]


def test_health_counts_and_places_remarks() -> None:
    table = health_table(Run(nan_rows=(5,), seam_at=23).recording())
    np.testing.assert_allclose(table["unchanged_share"], 2 / 300)
    assert set(table["remarks"]) == {"nonfinite", "seam"}
    np.testing.assert_array_equal(table["remarks"]["nonfinite"], [60])
    np.testing.assert_array_equal(table["remarks"]["seam"], [240])
    assert "2 ms a snapshot" in table["facts"]


def test_metrics_are_sorted_by_what_they_are() -> None:
    table = metrics_table(RUN.recording())
    assert set(table["accuracy"]) == {"test_accuracy", "train_accuracy"}
    assert list(table["loss"]) == ["train_loss"]
    assert table["drawn"] == ["accuracy", "loss"]
    assert table["facts"].endswith("recorded, not drawn: grad_norm")
    np.testing.assert_allclose(table["loss"]["train_loss"][1], 1 / np.arange(1, 49))
    assert "monitor.log" in metrics_table(Run(metrics=False).recording())["note"]


@pytest.mark.parametrize("make", [singular_values_table, ratio_profile_table, gap_position_table, widths_table])
def test_a_window_that_cannot_be_is_refused(make) -> None:
    with pytest.raises(SettingError, match="lags"):
        make(RUN.recording(), window=50)
    with pytest.raises(SettingError, match="window must be at least 2"):
        make(RUN.recording(), window=1)
    with pytest.raises(DataError, match="it has 6"):
        make(DEGENERATE["too few updates"].recording(), window=W)
