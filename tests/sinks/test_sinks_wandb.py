"""W&B offline: the user's own steps stay theirs; the file it writes is read back."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import wandb_reference
from sinks_runs import Training, expected

from spectraledge.errors import SettingError
from spectraledge.recording import Event
from spectraledge.sinks import Alert, WandbSink, connect


@pytest.fixture(scope="module")
def wandb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "WANDB_MODE": "offline",
            "WANDB_DIR": str(tmp_path_factory.mktemp("wandb")),
            "WANDB_SILENT": "true",
            "WANDB_CONSOLE": "off",
            "WANDB_ERROR_REPORTING": "false",
            "WANDB_DISABLE_GIT": "true",
            "WANDB_DISABLE_CODE": "true",
            "WANDB_X_DISABLE_STATS": "true",
            "WANDB_X_DISABLE_META": "true",
        }.items():
            patch.setenv(name, value)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what wandb's own imports deprecate is not ours
            module = pytest.importorskip("wandb")
        yield module
        module.teardown()


def spectral(rows: list[dict[str, Any]]) -> dict[int, dict[str, float]]:
    return {int(r["spectral_edge/step"]): r for r in rows if "spectral_edge/step" in r}


def test_own_steps_go_on_counting_and_both_series_are_there(wandb: Any) -> None:
    run, training = wandb.init(project="spectra"), Training()
    at: list[int] = []

    def log(step: int) -> None:
        at.append(run.step)
        run.log({"loss": training.losses[-1]})

    with training.attach(every=2) as monitor:
        connection = connect(monitor, "wandb")
        training.steps(20, log)
    assert not connection.errors
    assert at == list(range(20))
    found = wandb_reference.finished(run)
    rows = wandb_reference.history(found)
    assert [(row["_step"], row["loss"]) for row in rows if "loss" in row] == list(enumerate(training.losses))
    assert max(row["_step"] for row in rows) <= 20  # at most the last of ours is behind the last of theirs
    want, ours = expected(monitor.recording), spectral(rows)
    assert len(ours) + connection.dropped["wandb"] == 10
    assert len(ours) >= 5  # the sink's thread may meet two snapshots in one row of a loop this fast
    for step, row in ours.items():
        for key, value in want[step].items():
            assert row[key] == pytest.approx(value, rel=1e-12), key  # JSON in between
    axes = {m.metric.glob_name: m.metric.step_metric for m in found if m.WhichOneof("record_type") == "metric"}
    assert axes["spectral_edge/*"] == "spectral_edge/step"


def test_explicit_steps_are_never_refused(wandb: Any) -> None:
    run, training = wandb.init(project="spectra"), Training()
    with training.attach() as monitor:
        connect(monitor, WandbSink(run))
        # one row of theirs for five snapshots of ours, at steps far below the optimizer's
        training.steps(20, lambda step: step % 5 == 0 and run.log({"epoch_loss": step}, step=step // 5))
    run.log({"test": 1.0}, step=3)  # joins the last row, as it would without the sink
    rows = wandb_reference.history(wandb_reference.finished(run))
    assert [(row["_step"], row["epoch_loss"]) for row in rows if "epoch_loss" in row] == [
        (0, 0),
        (1, 5),
        (2, 10),
        (3, 15),
    ]
    assert [row["_step"] for row in rows if "test" in row] == [3]


def test_a_row_holds_one_snapshot_and_the_others_are_counted(wandb: Any) -> None:
    run = wandb.init(project="spectra")
    sink = WandbSink(run)
    run.log({"mine": 0})
    assert sink.log(1, {"spectral_edge/step": 1.0, "spectral_edge/only_here": 1.0}) == 0
    assert sink.log(2, {"spectral_edge/step": 2.0}) == 0  # the open row holds step 1 already
    assert sink.log(3, {"spectral_edge/step": 3.0}) == 1
    run.log({"mine": 1})
    assert sink.log(4, {"spectral_edge/step": 4.0}) == 1
    assert sink.close() is None
    run.log({"mine": 2})
    rows = wandb_reference.history(wandb_reference.finished(run))
    assert [(row["mine"], row.get("spectral_edge/step"), row.get("spectral_edge/only_here")) for row in rows] == [
        (0, None, None),
        (1, 1.0, 1.0),
        (2, 4.0, None),
    ]


@pytest.mark.parametrize("own_run", [True, False])
def test_a_run_without_rows_of_your_own(wandb: Any, own_run: bool) -> None:
    run, training = wandb.init(project="spectra"), Training()
    with training.attach(every=2) as monitor:
        connect(monitor, WandbSink(run, own_run=own_run))
        training.steps(12)
        monitor.load_state_dict({**monitor.state_dict(), "step": 8})  # a step lower than the last
        training.steps(4)
    rows = wandb_reference.history(wandb_reference.finished(run))
    assert [row["spectral_edge/step"] for row in rows] == [2, 4, 6, 8, 10, 12, 10, 12]
    assert [row["_step"] for row in rows] == list(range(8))


def test_alerts_are_wandbs(wandb: Any) -> None:
    run = wandb.init(project="spectra")
    WandbSink(run).alert(Alert(Event(5, "all", "gap opened", detail="It is wide.")))
    found = wandb_reference.finished(run)
    (alert,) = [r.alert for r in found if r.WhichOneof("record_type") == "alert"]
    assert (alert.title, alert.level) == ("gap opened (all)", "WARN")
    assert "It is wide." in alert.text


@pytest.mark.filterwarnings("ignore:tracker wandb raised:RuntimeWarning")
def test_a_run_that_is_finished_too_early_ends_the_sink_and_not_the_training(wandb: Any) -> None:
    run, training = wandb.init(project="spectra"), Training()
    with training.attach() as monitor:
        connection = connect(monitor, "wandb")
        run.finish()
        training.steps(6)
    assert monitor.recording.n_updates == 6
    assert "finished before" in str(connection.errors["wandb"])


def test_without_a_run(wandb: Any) -> None:
    with pytest.raises(SettingError, match=r"wandb\.init"):
        WandbSink()
