"""Settings: defaults, text from a command line, and the sentence for every mistake."""

from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import ValidationError

from spectraledge.errors import SettingError
from spectraledge.experiments import catalogue
from spectraledge.experiments.config import configure
from spectraledge.experiments.settings import ModularSettings, build_settings, parse_settings


def build(**values: object) -> ModularSettings:
    return build_settings(ModularSettings, values, name="modular/add", fixed={"operation": "add"})


def test_defaults_are_those_of_the_published_runs() -> None:
    settings = build()
    assert (settings.p, settings.train_fraction, settings.batch_size, settings.clip) == (97, 0.5, 512, 1.0)
    assert (settings.lr, settings.betas, settings.weight_decay) == (1e-3, (0.9, 0.98), 1.0)
    assert (settings.d_model, settings.layers, settings.heads, settings.d_hidden) == (128, 2, 4, 256)
    assert (settings.eval_every, settings.threads, settings.dtype) == (100, 1, "float32")


@pytest.mark.parametrize(("optimizer", "lr"), [("adamw", 1e-3), ("muon", 0.02), ("sgd", 0.1)])
def test_learning_rate_follows_the_optimizer_unless_given(optimizer: str, lr: float) -> None:
    assert build(optimizer=optimizer).lr == lr
    assert build(optimizer=optimizer, lr=0.5).lr == 0.5


def test_text_is_understood_for_every_kind_of_field() -> None:
    words = ["weight_decay=0", "clip=none", "stop-after-grok=None", "betas=0.9,0.95", "steps=10"]
    settings = build(**parse_settings([*words, "labels=true", "dtype=float64"]))
    assert (settings.weight_decay, settings.clip, settings.stop_after_grok) == (0.0, None, None)
    assert (settings.betas, settings.steps) == ((0.9, 0.95), 10)
    assert (settings.labels, settings.dtype) == ("true", "float64")


def test_settings_cannot_be_changed_afterwards() -> None:
    with pytest.raises(ValidationError):
        build().steps = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"weigth_decay": 1}, r"must be known to it; got weigth_decay\. Did you mean weight_decay\?"),
        ({"qqqq": 1}, r"got qqqq\. Choose one of accumulate, adamw_lr"),
        ({"labels": "shufled"}, r"labels must be true or shuffled; got shufled\. Did you mean shuffled\?"),
        ({"optimizer": "adam"}, r"adamw or muon or sgd or nesterov; got adam\. Did you mean adamw\?"),
        ({"steps": 0}, r"steps must be at least 1; got 0\. Leave it out for the default, 8000\."),
        ({"steps": "many"}, r"steps must be a whole number; got many\."),
        ({"steps": 1.5}, r"steps must be a whole number; got 1\.5\."),
        ({"lr": "fast"}, r"lr must be a number; got fast\."),
        ({"lr": float("nan")}, r"lr must be a finite number; got nan\."),
        ({"lr": -1}, r"lr must be greater than 0; got -1\."),
        ({"train_fraction": 1}, r"train_fraction must be less than 1; got 1\."),
        ({"train_fraction": 1e-9}, r"must leave a pair on either side; got 1e-09 of 9409 pairs\."),
        ({"betas": "0.9"}, r"betas must be .*; got .*Leave it out for the default, 0\.9,0\.98\."),
        ({"betas": (0.9, 1.0)}, r"betas must both lie in \[0, 1\); got 0\.9,1\. Use betas=0\.9,0\.98"),
        ({"heads": 3}, r"d_model must be a multiple of heads; got 128 and 3\."),
        ({"seed": -1}, r"seed must be at least 0; got -1\."),
        ({"operation": "sub"}, r"operation is fixed by the name modular/add to add; got sub\. Choose"),
    ],
)
def test_mistakes_get_one_sentence(values: dict[str, object], sentence: str) -> None:
    with pytest.raises(SettingError, match=sentence):
        build(**values)


def test_two_mistakes_get_two_sentences() -> None:
    with pytest.raises(SettingError, match=r"steps must.*\. .*p must be at least 2"):
        build(steps=0, p=1)


def test_multiplication_needs_a_prime_and_addition_does_not() -> None:
    with pytest.raises(SettingError, match=r"p must be prime for mul: only then .* got 96\. Use p=97"):
        configure("modular/mul", p=96)
    assert configure("modular/add", p=96)[0].model_dump()["p"] == 96


@pytest.mark.parametrize("word", ["steps", "=3", "steps="])
def test_a_word_without_key_and_value_is_refused(word: str) -> None:
    with pytest.raises(SettingError, match="must read key=value"):
        parse_settings([word])


def test_a_key_may_not_have_two_values() -> None:
    with pytest.raises(SettingError, match="given once; got steps=1 and steps=2"):
        parse_settings(["steps=1", "steps=2"])
    assert parse_settings(["steps=1", "steps=1"]) == {"steps": "1"}


def test_names_and_the_nearest_name() -> None:
    operations = ("add", "sub", "mul", "x2_y2", "x2_xy_y2", "x3_xy")
    assert catalogue.names()[:6] == [f"modular/{operation}" for operation in operations]
    with pytest.raises(SettingError, match=r"got modular/ad\. Did you mean modular/add\?"):
        catalogue.entry("modular/ad")


def test_seed_from_either_side_but_not_two_seeds() -> None:
    assert configure("modular/add")[0].seed == 42
    assert configure("modular/add", seed=7)[0].seed == 7
    assert configure("modular/add", settings={"seed": "7"})[0].seed == 7
    with pytest.raises(SettingError, match="seed must be given once; got 1 and 2"):
        configure("modular/add", seed=1, settings={"seed": 2})


def test_the_written_command_says_every_setting() -> None:
    settings, config = configure("modular/add", seed=3, clip=None, p=13)
    words = config["command"].split()
    assert words[:5] == ["spectraledge", "run", "modular/add", "--seed", "3"]
    given = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
    assert configure("modular/add", seed=3, settings=parse_settings(given))[0] == settings


def test_listing_and_checking_load_no_torch() -> None:
    code = (
        "import sys; from spectraledge.experiments.run import configure; configure('modular/add'); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
