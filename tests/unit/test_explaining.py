"""Explained answers of the service: budgets, versions, windows, what is refused before any work."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import without_ray
import yaml
from local_service import LocalService
from ray.serve.exceptions import BackPressureError
from served import serving
from typer.testing import CliRunner

from deployments.cli import app as cli
from deployments.config.capacity import EXPLAINER, with_explainer
from deployments.config.check import check_config, load_config
from deployments.explain.explainer import Explainer
from deployments.explainer import Explainer as Replica
from deployments.http.app import create_app
from deployments.local import LocalClassifier
from deployments.model.load import load_parts
from deployments.pipeline.errors import (
    DeadlineExceeded,
    InvalidInput,
    NotImplementedHere,
    NotReady,
    Overloaded,
    TooLarge,
)
from deployments.pipeline.explaining import Explain, Explaining, Unexplained
from deployments.pipeline.types import Answer, OtherModel, TextInput, TimedAnswer
from deployments.replica.explainers import Explainers
from deployments.scaling.policy import BusyClock
from deployments.settings import ExplainSettings, LimitSettings, Settings
from deployments.tokenizer import Tokenizer
from scripts.render_k8s import render

LABELS = ("negative", "positive")
FOUND = {"method": "occlusion", "seconds": 0.5, "tokens": []}


class Model:
    """Answers with the version that serves; the next one follows after each call."""

    def __init__(self, *versions: str) -> None:
        self.versions = [*versions]
        self.asked: list[Unexplained] = []

    async def classify(self, inputs: Any, timeout_s: float | None = None) -> list[Any]:
        version = self.versions.pop(0) if len(self.versions) > 1 else self.versions[0]
        answer: Answer = {"label": "positive", "score": 0.9}
        return [
            TimedAnswer.of(dict(answer), 0.0, 1.0, version) if isinstance(item, TextInput) else item
            for item in inputs
        ]

    async def ask(self, asked: Unexplained) -> Any:
        self.asked.append(asked)
        return dict(FOUND) if asked.version == "new" else OtherModel("new")


def explaining(model: Model, limit_s: float = 30.0, **settings: Any) -> Explaining:
    return Explaining(
        model.classify, model.ask, lambda: LABELS, ExplainSettings(**settings), limit_s
    )


@pytest.mark.anyio
async def test_the_label_that_was_answered_is_explained_or_the_one_asked_for() -> None:
    model = Model("new")
    (answer,) = await explaining(model).answers([TextInput("好")], Explain())
    assert isinstance(answer, TimedAnswer)
    assert answer["explanation"] == FOUND
    assert answer.model_s == 1.5
    await explaining(model, max_passes=16).answers([TextInput("好")], Explain("negative"))
    assert [(one.target, one.passes) for one in model.asked] == [("positive", 32), ("negative", 16)]


@pytest.mark.anyio
async def test_an_answer_of_another_version_is_asked_for_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("deployments.pipeline.explaining._AGAIN_S", 0.0)
    model = Model("old", "new")
    (answer,) = await explaining(model).answers([TextInput("好")], Explain())
    assert isinstance(answer, dict)
    assert [one.version for one in model.asked] == ["old", "new"]
    model = Model("old")
    (answer,) = await explaining(model).answers([TextInput("好")], Explain())
    assert isinstance(answer, NotReady)
    assert len(model.asked) == 3


@pytest.mark.anyio
async def test_too_much_is_refused_before_anything_is_classified() -> None:
    model = Model("new")
    few = explaining(model, max_texts=2, max_passes=64)
    with pytest.raises(TooLarge, match="3 texts; at most 2 are explained"):
        await few.answers([TextInput("好")] * 3, Explain())
    with pytest.raises(InvalidInput, match="passes is 65; the limit is 64"):
        await few.answers([TextInput("好")], Explain(passes=65))
    with pytest.raises(InvalidInput, match="2 labels: negative, positive"):
        await few.answers([TextInput("好")], Explain("neutral"))
    assert model.asked == []


@pytest.mark.anyio
async def test_texts_of_a_list_that_no_time_is_left_for_say_so() -> None:
    model = Model("new")

    async def slow(asked: Unexplained) -> Any:
        await asyncio.sleep(asked.left_s)
        return dict(FOUND)

    model.ask = slow  # type: ignore[method-assign]
    first, second = await explaining(model, limit_s=0.2).answers([TextInput("好")] * 2, Explain())
    assert isinstance(first, dict)
    assert isinstance(second, DeadlineExceeded)


@pytest.fixture(scope="module")
def explainer(demo_model: Path) -> Explainer:
    settings = Settings.model_validate({"model": {"id": str(demo_model)}})
    return Explainer(settings, load_parts(settings.model))


def test_few_seconds_make_few_passes_and_none_a_408(
    explainer: Explainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = TextInput("质量很好，会再来")
    monkeypatch.setattr(Explainer, "_passes_in", lambda *_: 12)
    found = explainer.explain(text, "positive", passes=64, seconds=1_000.0)
    assert (found["method"], found["passes"]) == ("integrated_gradients", 13)
    monkeypatch.setattr(Explainer, "_passes_in", lambda *_: 2)
    assert explainer.explain(text, "positive", seconds=1e3)["method"] == "gradient_x_input"
    monkeypatch.setattr(Explainer, "_passes_in", lambda *_: 3)
    few = explainer.explain(text, "positive", seconds=1e3)
    assert (few["method"], few["passes"]) == ("integrated_gradients", 4)
    coarse = explainer.explain(text, "positive", "occlusion", seconds=1e3)
    assert coarse["passes"] == 4
    assert len(coarse["tokens"]) == 8
    with pytest.raises(DeadlineExceeded, match=r"args\.explain\.max_s"):
        explainer.explain(text, "positive", seconds=1e-9)
    assert explainer.explain(text, "positive", "gradient_x_input")["passes"] == 1


def test_of_a_long_text_the_window_that_decided_is_explained(
    make_tiny_model: Callable[..., Path],
) -> None:
    settings = {
        "model": {"id": str(make_tiny_model())},
        "engine": {"name": "torch"},
        "redaction": {"kinds": ["phone"]},
    }
    text = "打13800138000。" + "很好。" * 60
    with LocalClassifier(settings) as tiny:
        answer = tiny.explain(text, long_text="window", passes=4)
    deciding = answer["windows"]["deciding"]
    tokens = answer["explanation"]["tokens"]
    assert answer["redacted"] == 1
    assert not answer["explanation"]["truncated"]
    assert all(t["text"] == text[t["start"] : t["end"]] for t in tokens)
    # The window counts in the text as it was read: <PHONE> has fewer characters than the number.
    shift = len("13800138000") - len("<PHONE>")
    if deciding["index"]:
        assert tokens[0]["start"] == deciding["start"] + shift
    assert len(tokens) < 62


@pytest.fixture
def service(demo_model: Path) -> Callable[..., Any]:
    """A Tokenizer whose Explainer is in this process."""

    async def make(explain: Callable[..., Any] | None) -> Tokenizer:
        on = {"enabled": explain is not None}
        settings = Settings.model_validate({"model": {"id": str(demo_model)}, "explain": on})
        replica = without_ray.tokenizer(settings, explain=explain)
        await replica._chain.loading
        return replica

    return make


@pytest.mark.anyio
async def test_a_handle_call_explains_by_the_version_that_answered(
    service: Callable[..., Any], explainer: Explainer
) -> None:
    asked: list[Unexplained] = []

    def explain(one: Unexplained) -> Any:
        asked.append(one)
        return explainer.explain(one.item, one.target, one.method, one.passes)

    tokenizer = await service(explain)
    answer = await tokenizer.explain("很好", method="occlusion", passes=4)
    assert answer["explanation"]["label"] == answer["label"]
    assert [t["text"] for t in answer["explanation"]["tokens"]] == ["很", "好"]
    assert "model" not in answer
    assert asked[0].version == load_parts(tokenizer._settings.model).version
    both = await tokenizer.classify(["很好", " "], explain=True)
    assert "explanation" in both[0]
    assert both[1]["error"]["code"] == "empty_text"


@pytest.mark.anyio
async def test_the_replica_explains_its_own_version_politely(
    demo_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nicer: list[int] = []
    monkeypatch.setattr("os.nice", lambda by: nicer.append(by) or 0)
    monkeypatch.setattr("deployments.explainer._assigned_cpus", lambda: 0.1)
    threads = torch.get_num_threads()
    settings = Settings.model_validate({"model": {"id": str(demo_model)}})
    replica = Replica(settings)
    try:
        assert (nicer[0], torch.get_num_threads()) == (10, 1)
        version = load_parts(settings.model).version
        asked = Unexplained(TextInput("很好"), version, "positive", "occlusion", 8, 30.0)
        found = await replica.explain(asked)
        assert [one["text"] for one in found["tokens"]] == ["很", "好"]
        assert replica._stats(BusyClock())["busy"] >= 0
        assert await replica.explain(replace(asked, version="old")) == OtherModel(version)
        with pytest.raises(InvalidInput):
            await replica.explain(replace(asked, target="neutral"))
        with pytest.raises(DeadlineExceeded, match="before"):
            await replica.explain(replace(asked, left_s=0.0))
    finally:
        torch.set_num_threads(threads)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("failure", "error", "said"),
    [
        (BackPressureError(8, 8), Overloaded, "max_replicas of the Explainer"),
        (asyncio.sleep, NotReady, "Explainer.min_replicas: 1"),
    ],
)
async def test_a_busy_or_absent_explainer_is_told_from_a_slow_service(
    service: Callable[..., Any], failure: Any, error: type[Exception], said: str
) -> None:
    async def explain(_: Unexplained) -> Any:
        if isinstance(failure, Exception):
            raise failure
        await failure(60)

    tokenizer = await service(explain)
    with pytest.raises(error, match=said) as caught:
        await tokenizer.explain("很好", timeout_s=1.0)
    assert caught.value.retry_after_s == 5.0  # type: ignore[attr-defined]
    # Whoever only classifies notices nothing.
    assert (await tokenizer.classify("很好"))["tokens"] == 4


@pytest.mark.anyio
async def test_texts_are_classified_while_one_is_explained(service: Callable[..., Any]) -> None:
    may_end = asyncio.Event()

    async def explain(_: Unexplained) -> Any:
        await may_end.wait()
        return dict(FOUND)

    tokenizer = await service(explain)
    explained = asyncio.create_task(tokenizer.explain("很好"))
    answers = [await tokenizer.classify("很好") for _ in range(20)]
    assert [answer["tokens"] for answer in answers] == [4] * 20
    assert not explained.done()
    may_end.set()
    assert (await explained)["explanation"] == FOUND


@pytest.mark.anyio
async def test_a_text_waits_for_no_explainer_that_has_still_to_start() -> None:
    """Serve's queue would hold it, however long its caller has been gone."""
    given: list[Unexplained] = []
    explainer = without_ray.handle(ready=lambda: asyncio.sleep(60), explain=given.append)
    with pytest.raises(NotReady):
        await Explainers(explainer)(Unexplained(TextInput("好"), "v", "positive", "auto", 2, 0.05))
    assert given == []


@pytest.mark.anyio
async def test_where_it_is_off_the_cure_is_told(service: Callable[..., Any]) -> None:
    tokenizer = await service(None)
    with pytest.raises(NotImplementedHere, match=r"args\.explain\.enabled"):
        await tokenizer.explain("很好")
    with pytest.raises(NotImplementedHere):
        await tokenizer.classify("很好", explain=True)


def test_an_explainer_need_not_stand_in_the_config() -> None:
    app = {"args": {"explain": {"enabled": True}}, "deployments": [{"name": "Tokenizer"}]}
    found = with_explainer(app)["deployments"]
    assert [one["name"] for one in found] == ["Tokenizer", EXPLAINER]
    assert found[1]["autoscaling_config"]["min_replicas"] == 0
    declared = {**app, "deployments": [{"name": EXPLAINER}]}
    assert with_explainer(declared) == declared
    assert with_explainer({"args": {}}) == {"args": {}}


@pytest.mark.parametrize(
    ("change", "path", "cure"),
    [
        ({"explain": {"enabled": True, "max_s": 30.0}}, "args.explain.max_s", "lower it"),
        (
            {"explain": {"enabled": True}, "engine": {"name": "none"}},
            "args.explain.enabled",
            "no model to explain",
        ),
        ({}, "deployments[3].name", "args.explain.enabled"),
    ],
)
def test_check_finds_what_can_not_be_explained(
    change: dict[str, Any], path: str, cure: str
) -> None:
    config = load_config("serve_config.yaml")
    app = config["applications"][0]
    app["args"] |= change
    if not change:
        app["deployments"].append({"name": EXPLAINER})
    (problem,) = check_config(config)
    assert problem.path == f"applications[0].{path}"
    assert cure in problem.message


def test_check_takes_an_explainer_but_no_live_settings() -> None:
    config = load_config("serve_config.yaml")
    app = config["applications"][0]
    app["args"]["explain"] = {"enabled": True}
    assert check_config(config) == []
    app["deployments"].append({"name": EXPLAINER, "ray_actor_options": {"num_cpus": 1}})
    assert check_config(config) == []
    app["deployments"][-1]["user_config"] = {"log_level": "DEBUG"}
    (problem,) = check_config(config)
    assert "has no live settings" in problem.message


def test_on_kubernetes_it_stands_on_cpu_pods() -> None:
    config = load_config("serve_config.gpu.yaml")
    config["applications"][0]["args"]["explain"] = {"enabled": True}
    served = yaml.safe_load(render(config, "image", "explains"))["spec"]["serveConfigV2"]
    *_, last = yaml.safe_load(served)["applications"][0]["deployments"]
    assert last["name"] == EXPLAINER
    assert last["ray_actor_options"] == {"num_cpus": 0.1, "label_selector": {"pool": "cpu"}}


def test_the_command_asks_a_service(demo_model: Path) -> None:
    service = LocalService(demo_model)
    try:
        with serving(create_app(service, LimitSettings())) as url:
            asked = ["explain", "质量很好", "--url", url, "--method", "occlusion", "--json"]
            done = CliRunner().invoke(cli, asked)
            assert done.exit_code == 0, done.output
            assert json.loads(done.stdout)["explanation"]["method"] == "occlusion"
            wrong = CliRunner().invoke(cli, [*asked, "--target", "neutral"])
            assert wrong.exit_code == 1
            assert "negative, positive" in wrong.output
        gone = CliRunner().invoke(cli, ["explain", "好", "--url", "http://127.0.0.1:9"])
        assert gone.exit_code == 3
    finally:
        service.local.close()
