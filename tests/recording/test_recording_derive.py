"""Everything derived from the band equals the same thing computed from the updates themselves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recording_reference import ExplicitRun, coarse_rows, small_run

from spectraledge.errors import DataError, SettingError
from spectraledge.recording import Recording, RecordingWriter, derive

# Sums of 30 products of order 1, up to 16 of them per coarse entry: rounding is below 1e-13 of the norms.
TOLERANCE = 1e-12
RUN = small_run()  # 24 updates, lags 7
RECORDING = RUN.recording()
UNIONS = [
    ("all", ("all",)),
    ("a.b", ("a.b",)),
    (["c.w", "a.b"], ("a.b", "c.w")),
    ("a.*", ("a.w", "a.b")),
    (lambda name, info: info["n_parameters"] > 5, ("a.w", "c.w")),
]


@pytest.mark.parametrize(("choice", "names"), UNIONS)
@pytest.mark.parametrize(("window", "stride"), [(2, 1), (3, 1), (8, 1), (2, 2), (4, 2), (2, 3), (2, 4)])
def test_windows_at_every_stride_and_union(choice, names, window, stride):
    rows = coarse_rows(RUN.updates[:, RUN.columns(*names)], stride)
    steps, gram = RECORDING.gram(window, stride, choice)
    spectra = RECORDING.spectra(window, stride, choice)
    assert len(steps) == len(gram) == len(rows) - window + 1
    np.testing.assert_array_equal(spectra.steps, steps)
    for n in range(len(steps)):
        x = rows[n : n + window]
        np.testing.assert_allclose(gram[n], x @ x.T, rtol=0, atol=TOLERANCE * 1e3)
        sigma = np.linalg.svd(x, compute_uv=False)
        # a root of an eigenvalue: errors of sigma^2 at rounding level, relative to sigma_1^2
        np.testing.assert_allclose(
            spectra.singular_values[n] ** 2, sigma_padded(sigma, window) ** 2, atol=1e-11 * sigma[0] ** 2
        )
        assert steps[n] == RUN.every * stride * (n + window)


def sigma_padded(sigma, window):
    """A block of 3 parameters has at most 3 singular values that are not 0."""
    return np.append(sigma, np.zeros(window - len(sigma)))


@pytest.mark.parametrize(
    ("window", "lag", "stride"), [(3, 1, 1), (4, 4, 1), (2, 5, 1), (3, 0, 1), (2, 2, 2), (2, 1, 2)]
)
def test_cross_windows_and_overlaps(window, lag, stride):
    rows = coarse_rows(RUN.updates, stride)
    steps, cross = RECORDING.cross_gram(window, lag, stride)
    again, overlaps = RECORDING.overlaps(window, lag, stride=stride)
    np.testing.assert_array_equal(steps, again)
    assert len(steps) == len(rows) - window + 1 - lag
    for n in range(len(steps)):
        earlier, later = rows[n : n + window], rows[n + lag : n + lag + window]
        np.testing.assert_allclose(cross[n], later @ earlier.T, rtol=0, atol=TOLERANCE * 1e3)
        v_later = np.linalg.svd(later, full_matrices=False)[2]
        v_earlier = np.linalg.svd(earlier, full_matrices=False)[2]
        # modes of 30-dimensional noise are separated by some 10 %, so directions are good to ~1e-11
        np.testing.assert_allclose(np.abs(overlaps[n]), np.abs(v_later @ v_earlier.T), rtol=0, atol=1e-9)
        assert steps[n] == RUN.every * stride * (n + lag + window)


def test_overlap_with_itself_is_the_identity():
    _, overlaps = RECORDING.overlaps(4, 0)
    np.testing.assert_allclose(overlaps, np.broadcast_to(np.eye(4), overlaps.shape), atol=1e-10)


def test_signs_of_overlaps_belong_to_the_time_profiles():
    spectra = RECORDING.spectra(3)
    _, overlaps = RECORDING.overlaps(3, 2)
    for n in range(3):
        v = [RUN.updates[i : i + 3].T @ spectra.time_profiles[i] / spectra.singular_values[i] for i in (n, n + 2)]
        np.testing.assert_allclose(overlaps[n], v[1].T @ v[0], atol=1e-10)


@pytest.mark.parametrize(("choice", "names"), UNIONS)
def test_parameters_against_updates(choice, names):
    cols = RUN.columns(*names)
    band = RECORDING.theta_band(choice)
    for t in range(len(RUN.updates)):
        for lag in range(8):
            if lag > t:
                assert np.isnan(band[t, lag])
            else:
                expected = RUN.thetas[t, cols] @ RUN.updates[t - lag, cols]
                np.testing.assert_allclose(band[t, lag], expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize(("window", "stride"), [(3, 1), (2, 3), (4, 2)])
@pytest.mark.parametrize("choice", ["all", "c.w"])
def test_modes_against_parameters(window, stride, choice):
    cols = RUN.columns(choice)
    steps, cosines = RECORDING.theta_overlap(window, choice, stride)
    spectra = RECORDING.spectra(window, stride, choice)
    rows = coarse_rows(RUN.updates[:, cols], stride)
    np.testing.assert_array_equal(steps, spectra.steps)
    for n in range(len(steps)):
        theta = RUN.thetas[(n + window) * stride - 1, cols]
        v = rows[n : n + window].T @ spectra.time_profiles[n] / spectra.singular_values[n]
        np.testing.assert_allclose(cosines[n], theta @ v / np.linalg.norm(theta), atol=1e-10)


def test_row_normalisation():
    rows = RUN.updates / np.linalg.norm(RUN.updates, axis=1, keepdims=True)
    _, gram = RECORDING.gram(4, normalisation="row")
    np.testing.assert_allclose(gram[7], rows[7:11] @ rows[7:11].T, atol=1e-13)
    assert RECORDING.spectra(4, normalisation="row").normalisation == "row"


def test_learning_rates_by_group():
    rng = np.random.default_rng(1)
    lr = rng.uniform(0.1, 1, size=(24, 2))
    info = [{"name": "a.w", "group": 0}, {"name": "a.b", "group": 1}, {"name": "c.w", "group": 1}]
    run = small_run(lr=lr, block_info=info)
    recording = run.recording()
    of_column = np.concatenate([np.zeros(12, int), np.ones(18, int)])
    for stride in (1, 2):
        n = 24 // stride
        total = lr.reshape(n, stride, 2).sum(axis=1)
        rows = coarse_rows(run.updates, stride) / total[:, of_column]
        _, gram = recording.gram(3, stride, normalisation="lr")
        np.testing.assert_allclose(gram[4], rows[4:7] @ rows[4:7].T, rtol=1e-12)
        cols = run.columns("a.b", "c.w")
        _, gram = recording.gram(3, stride, ["a.b", "c.w"], "lr")
        np.testing.assert_allclose(gram[4], rows[4:7, cols] @ rows[4:7, cols].T, rtol=1e-12)


def test_learning_rates_without_groups():
    equal = np.repeat(np.linspace(0.1, 1, 24)[:, None], 2, axis=1)
    recording = small_run(lr=equal).recording()
    rows = RUN.updates / equal[:, :1]
    np.testing.assert_allclose(recording.gram(3, normalisation="lr")[1][5], rows[5:8] @ rows[5:8].T, rtol=1e-12)
    differing = small_run(lr=equal * [1, 2]).recording()
    with pytest.raises(SettingError, match=r"must know the learning rate of block 'a\.w'; there are 2 groups"):
        differing.gram(3, normalisation="lr")
    none = small_run(lr=np.empty((24, 0))).recording()
    with pytest.raises(SettingError, match="needs recorded learning rates"):
        none.gram(3, normalisation="lr")


def test_no_direction_no_learning_rate_no_number():
    updates = RUN.updates.copy()
    updates[5] = 0
    lr = np.full((24, 1), 0.5)
    lr[9] = 0
    recording = small_run(lr=lr)
    recording.updates = updates
    recording = recording.recording()
    for normalisation, bad in (("row", 5), ("lr", 9)):
        gram = recording.gram(2, normalisation=normalisation)[1]
        np.testing.assert_array_equal(np.isnan(gram).any(axis=(1, 2)), [t in (bad, bad + 1) for t in range(1, 24)])
    assert np.isfinite(recording.spectra(2).singular_values).all()  # raw, a zero update is a number


def test_rows_of_unequal_length_do_not_coarsen():
    writer = RecordingWriter(None)
    writer.write("segment", **RUN.segment())
    step = 0
    for t in range(24):
        n_steps = 10 if t != 9 else 5
        step += n_steps
        writer.write("row", **(RUN.row(t) | {"n_steps": n_steps, "step": step}))
    recording = Recording.from_log(writer.log())
    sigma = recording.spectra(2, stride=2).singular_values[:, 0]  # coarse row 4 = updates 8, 9
    np.testing.assert_array_equal(np.isnan(sigma), [row in (4, 5) for row in range(1, 12)])
    assert np.isfinite(recording.spectra(2).singular_values).all()
    cross = recording.cross_gram(2, 2, stride=2)[1]  # pair n: coarse rows n, n+1 against n+2, n+3
    np.testing.assert_array_equal(np.isnan(cross).any(axis=(1, 2)), [n <= 4 <= n + 3 for n in range(9)])


@settings(derandomize=True, deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(2, 4), st.integers(0, 3), st.integers(8, 20))
def test_any_window_stride_and_lag(seed, stride, window, lag, n_updates):
    rng = np.random.default_rng(seed)
    lags = stride * (window + lag) - 1 + int(rng.integers(0, 3))
    run = ExplicitRun(rng.normal(size=(n_updates, 5)), {"x": 2, "y": 3}, lags=lags)
    recording = run.recording()
    if n_updates < stride * (window + lag):
        with pytest.raises(DataError):
            recording.cross_gram(window, lag, stride)
        return
    rows = coarse_rows(run.updates, stride)
    _, cross = recording.cross_gram(window, lag, stride)
    for n in range(len(cross)):
        np.testing.assert_allclose(cross[n], rows[n + lag : n + lag + window] @ rows[n : n + window].T, atol=1e-11)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"window": 1}, "window must be at least 2; got 1. A single update has no gap"),
        ({"window": 9}, "stride 1 x window 9 must be at most lags .* = 8; got 9. Record with lags=8"),
        ({"window": 3, "stride": 3}, "stride 3 x window 3 must be at most lags .* got 9"),
        ({"window": 2, "stride": 0}, "stride must be at least 1; got 0"),
        ({"window": 2, "normalisation": "l2"}, "normalisation must be one of raw, row, lr; got 'l2'"),
        ({"window": 2, "block": "nope"}, "block must be in the recording"),
    ],
)
def test_settings_that_cannot_be(arguments, sentence):
    for method in (RECORDING.gram, RECORDING.spectra):
        with pytest.raises(SettingError, match=sentence):
            method(**arguments)


def test_disjoint_windows_need_twice_the_band():
    assert len(RECORDING.overlaps(4, 4)[0]) == 17
    with pytest.raises(SettingError, match=r"stride 1 x \(window 5 \+ lag 5\) must be at most lags \+ 1 = 8; got 10"):
        RECORDING.overlaps(5, 5)
    with pytest.raises(SettingError, match="lag must be at least 0"):
        RECORDING.cross_gram(3, -1)


def test_runs_that_are_too_short():
    short = small_run(n_updates=3, lags=7).recording()
    with pytest.raises(DataError, match="at least 4 updates for windows of 4 at stride 1; it has 3"):
        short.spectra(4)
    with pytest.raises(SettingError, match=r"stride must be from 1 to lags \+ 1 = 8; got 9"):
        short.band(stride=9)


def test_coarsening_keeps_leading_blocks():
    band = derive.coarsen(RECORDING.products, RECORDING.n_steps, 2)
    for b in range(4):
        np.testing.assert_array_equal(band[:, b], derive.coarsen(RECORDING.products[:, b], None, 2))


def test_rows_can_be_scaled_in_a_run_shorter_than_its_band() -> None:
    band = np.full((4, 20), np.nan)
    for t in range(4):
        band[t, : t + 1] = 6.0
    scaled = derive.scale_rows(band, np.array([1.0, 2.0, 3.0, 4.0]))
    assert scaled[3, :4].tolist() == [6.0 * 16, 6.0 * 12, 6.0 * 8, 6.0 * 4]
    assert np.isnan(scaled[3, 4:]).all()
