"""The running detector: the alarms of the protocol, whatever way the rows come in."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from precursor_runs import EVERY, record

from spectraledge.detect.precursors.combination import Hazard
from spectraledge.detect.precursors.detector import KIND, GrokkingDetector, find_grokking
from spectraledge.detect.precursors.frozen import Frozen, FrozenRule
from spectraledge.detect.precursors.rules import Judging, Rule, first_alarms
from spectraledge.detect.precursors.runs import make_run
from spectraledge.errors import DataError, SettingError

JUDGING = Judging(horizon=1e9, burn_in=45)
HAZARD = Hazard(
    (("turning over 2W, head", "rise"), ("radial balance, layers", "low"), ("norm by part, layers", "fall")),
    np.zeros(3),
    np.ones(3),
    np.array([1.0, 0.01, 0.5]),
    -0.2,
)
RULES = {
    "straightness": FrozenRule(Rule("straightness, updates, head", "rise", 0.8), "candidate"),
    "moving straightness": FrozenRule(Rule("straightness, updates, head", "moving rise", 0.8), "candidate"),
    "turning": FrozenRule(Rule("turning over 2W, head", "rise", 0.7), "candidate"),
    "effective rows": FrozenRule(Rule("effective rows, gradients, head", "fall", 0.4), "candidate"),
    "coherence": FrozenRule(Rule("disjoint coherence, gradients, head", "rise", 0.7), "candidate"),
    "far cosine": FrozenRule(Rule("cosine W..L apart, updates, head", "high", 0.3), "candidate"),
    "P_eff": FrozenRule(Rule("log10 P_eff, head", "fall", 0.3), "candidate"),
    "hazard": FrozenRule(Rule("hazard", "high", 0.1), "candidate", HAZARD),
    "loss": FrozenRule(Rule("train loss", "low", 0.1), "baseline"),
    "since": FrozenRule(Rule("turning over 2W, head", "above", 0.1), "candidate"),
}
FROZEN = Frozen("straightness", "loss", RULES, JUDGING, {}, (), "", {})
RUNNING = [name for name in RULES if name not in ("loss", "since")]


@pytest.fixture(scope="module")
def recording():
    return record(None, 5, 120, drift_from=60, event=None)


@pytest.mark.parametrize("name", RUNNING)
def test_alarms_are_those_of_the_protocol_to_the_bit(recording, name):
    run = make_run("a-5", recording, {"seed": 5}, "", 0.0, JUDGING.window)
    traces = RULES[name].traces([run], JUDGING)
    before, after = traces[0, :60].max(), traces[0, 60:].max()
    assert after > before  # the drift is seen
    rule = dataclasses.replace(
        RULES[name], rule=dataclasses.replace(RULES[name].rule, threshold=(before + after) / 2)
    )
    alarm = first_alarms([run], traces, rule.rule.threshold)[0]
    events = find_grokking(recording, dataclasses.replace(FROZEN, rules={name: rule}), name)
    assert [event.step for event in events] == [alarm]
    assert events[0].kind == KIND
    assert events[0].value == traces[0, np.searchsorted(recording.steps, alarm)]


def test_noise_raises_no_alarm():
    assert not find_grokking(record(None, 6, 120, drift_from=None, event=None), FROZEN)


def test_rows_as_a_monitor_writes_them(recording, tmp_path):
    """A detector that hears the records, stops and goes on reports what one that sees all rows at once does."""
    record(tmp_path, 5, 120, drift_from=60, event=None)
    from spectraledge.recording.reader import read_log

    heard: list = []
    detector = GrokkingDetector(FROZEN, callback=heard.append)
    for i, entry in enumerate(read_log(tmp_path).records):
        detector.hear(entry["kind"], entry)
        if i % 31 == 30:
            state = json.loads(json.dumps(detector.state()))
            detector = GrokkingDetector(FROZEN, callback=heard.append)
            detector.load_state(state)
    assert heard == find_grokking(recording, FROZEN)


@pytest.mark.parametrize(
    "statistic", ["straightness, updates, all", "radial balance, all", "turning over 2W, layers"]
)
def test_a_real_run(tmp_path, statistic):
    torch = pytest.importorskip("torch")
    import spectraledge as se

    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(64, 8, generator=generator), torch.randn(64, 3, generator=generator)
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 3))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=1.0)
    # always passed, at the first snapshot judged: what counts is that both see the same value there, to the bit
    rule = FrozenRule(Rule(statistic, "high", -1e9), "candidate")
    frozen = dataclasses.replace(FROZEN, rules={"any": rule}, winner="any")
    heard: list = []
    detector = GrokkingDetector(frozen, callback=heard.append)
    with se.attach(model, optimizer, out=tmp_path, every=2, blocks="layer") as monitor:
        detector.extend(monitor.recording)
        monitor.on_record(detector.hear)
        for step in range(240):
            rows = slice(step % 4 * 16, step % 4 * 16 + 16)
            optimizer.zero_grad()
            torch.nn.functional.mse_loss(model(x[rows]), y[rows]).backward()
            optimizer.step()
    assert [event.step for event in heard] == [2 * (JUDGING.burn_in + JUDGING.sustain)]
    assert heard == find_grokking(se.load(tmp_path), frozen)


def test_a_seam_forgets_the_past(recording):
    detector = GrokkingDetector(FROZEN)
    detector.start({"blocks": ["head"], "block_info": [{"name": "head", "kind": "head"}], "lags": 19})
    for t in range(100):
        row = {
            "step": t,
            "n_steps": EVERY,
            "products": recording.products[t, 3:],
            "theta_dot": recording.theta_dot[t, 3:],
            "theta_norm2": recording.theta_norm2[t, 3:],
            "lr_sum": recording.lr_sum[t],
            "flags": ["seam"] if t == 58 else [],
        }
        # the burn-in of 45 rows begins again, and with it the smallest value of the drift
        assert not detector.push(row)


def test_rules_that_read_metrics_cannot_run():
    for name in ("loss", "since"):
        with pytest.raises(SettingError, match="updates alone"):
            GrokkingDetector(FROZEN, name)
    with pytest.raises(SettingError, match="rule must be one of"):
        GrokkingDetector(FROZEN, "other")


def test_blocks_must_be_known(recording):
    detector = GrokkingDetector(FROZEN)
    row = {
        "step": 1,
        "n_steps": 1,
        "products": recording.products[30, 1:],
        "theta_dot": recording.theta_dot[30, 1:],
        "theta_norm2": recording.theta_norm2[30, 1:],
        "lr_sum": recording.lr_sum[30],
    }
    with pytest.raises(DataError, match="must know the blocks"):
        detector.push(row)
    with pytest.raises(DataError, match="must tell the head apart"):
        detector.start({"blocks": ["a", "b", "c"], "block_info": [], "lags": 19})
    with pytest.raises(DataError, match="last 9 updates; got 8"):
        detector.start({"blocks": ["head"], "block_info": [], "lags": 8})
    detector.start({"blocks": ["a", "b", "head"], "block_info": [], "lags": 19})  # a name is enough
    assert not detector.push(row)


def test_another_rules_state():
    state = GrokkingDetector(FROZEN).state()
    with pytest.raises(DataError, match="as it was when it was saved"):
        GrokkingDetector(FROZEN, "turning").load_state(state)
