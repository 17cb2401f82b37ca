"""Where an update's new replicas find room, by what Serve and the nodes tell."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from recorded_serve import deployed, details

from deployments.deploying.room import Node
from deployments.deploying.serve_state import AppState, read_applications
from deployments.deploying.surge import Wave, first_wave


def running(**replicas: int) -> AppState:
    """The recorded application with so many replicas of each."""
    told = details("two_running")
    deployments = told["applications"]["classify"]["deployments"]
    for name, number in replicas.items():
        deployments[name]["target_num_replicas"] = number
        deployments[name]["replicas"] = deployments[name]["replicas"][:1] * number
    return read_applications(told)["classify"]


def asked(**options: dict[str, Any]) -> dict[str, Any]:
    """Another model, so that all is made anew; options: of a deployment by its name."""
    config = copy.deepcopy(deployed("two_running"))
    config["args"]["model"]["id"] = "/models/m2"
    for one in config["deployments"]:
        one |= {"max_surge_percent": 100, **options.get(one["name"], {})}
    return config


def node(name: str, cpu: float, of: float = 8.0, gpu: float = 0.0, of_gpus: float = 0.0) -> Node:
    """cpu, gpu: what is free."""
    total = {"CPU": of, **({"GPU": of_gpus} if of_gpus else {})}
    return Node(name, {"CPU": of - cpu, "GPU": of_gpus - gpu}, total)


def waves(there: AppState, config: dict[str, Any], *nodes: Node) -> dict[str, Wave]:
    return {wave.deployment: wave for wave in first_wave(there, config, nodes)}


def test_room_for_all_is_said_with_its_nodes() -> None:
    found = waves(running(), asked(), node("a", 0.9), node("b", 0.3))
    assert {name: wave.fits for name, wave in found.items()} == {
        "Tokenizer": 1,
        "Classifier": 1,
        "Postprocessor": 1,
    }
    assert found["Classifier"].said() == (
        "Classifier: 1 replica to replace, 1 at a time; room on a"
    )


def test_deployments_share_the_room_and_who_is_left_out_is_said() -> None:
    """0.9 CPU has room for the Classifier (0.8) and one of the two others (0.1), not for both."""
    found = waves(running(), asked(), node("a", 0.9, of=2.0))
    assert sorted(wave.fits for wave in found.values()) == [0, 1, 1]
    (left_out,) = (wave for wave in found.values() if not wave.fits)
    said = left_out.said()
    assert said.startswith(
        f"no room for the surge: {left_out.deployment} asks for 0.1 CPU; a has 0 of 2 CPU free"
    )
    assert "the update waits until a node has room" in said
    assert "max_surge_percent: 0" in said


def test_gpus_count_by_node_and_fractions_share_one() -> None:
    on_gpu = {"ray_actor_options": {"num_cpus": 1, "num_gpus": 0.5}, "max_surge_percent": 50}
    there = running(Classifier=4)
    nodes = node("cpu", 8.0), node("gpu1", 8.0, 8.0, 0.0, 1.0), node("gpu2", 8.0, 8.0, 0.5, 1.0)
    found = waves(there, asked(Classifier=on_gpu), *nodes)
    classifier = found["Classifier"]
    assert (classifier.surge, dict(classifier.places)) == (2, {"gpu2": 1})
    assert classifier.said() == (
        "Classifier: 4 replicas to replace, 1 at a time, not the 2 that max_surge_percent allows; "
        "room on gpu2"
    )
    # Who asks for no GPU leaves those nodes to others, as Ray does.
    assert dict(found["Tokenizer"].places) == {"cpu": 1}


@pytest.mark.parametrize(
    ("replicas", "percent", "surge"), [(4, 25, 1), (8, 25, 2), (3, 25, 1), (5, 28, 2), (2, 100, 2)]
)
def test_the_surge_is_rounded_up_as_serve_does(replicas: int, percent: int, surge: int) -> None:
    config = asked(Classifier={"max_surge_percent": percent})
    assert waves(running(Classifier=replicas), config)["Classifier"].surge == surge


def test_without_a_surge_old_ones_stop_first_and_that_is_said() -> None:
    config = asked(Classifier={"max_surge_percent": 0})
    wave = waves(running(Classifier=2), config, node("a", 8.0))["Classifier"]
    assert wave.said().startswith("Classifier: max_surge_percent is 0, so of 2 replicas old ones")


def test_old_replicas_count_for_max_replicas_per_node() -> None:
    """One a node, and one on each: no new one may stand beside it, whatever is free."""
    there = running()
    (on,) = next(stage.on_nodes for stage in there.stages if stage.name == "Classifier")
    config = asked(Classifier={"max_replicas_per_node": 1})
    wave = waves(there, config, node(on, 8.0))["Classifier"]
    assert wave.fits == 0
    assert "max_replicas_per_node, 1, counts old replicas too. The old" in wave.said()
    found = waves(there, config, node(on, 8.0), node("b", 8.0))["Classifier"]
    assert dict(found.places) == {"b": 1}
    config = asked(Classifier={"max_replicas_per_node": 2})
    assert waves(there, config, node(on, 8.0))["Classifier"].fits == 1


def test_what_is_applied_live_needs_no_room() -> None:
    same = copy.deepcopy(deployed("two_running"))
    same["deployments"][1]["user_config"] = {"max_batch_tokens": 1}
    assert waves(running(), same, node("a", 0.0)) == {}


def test_other_resources_replace_one_deployment_and_the_new_ones_count() -> None:
    config = copy.deepcopy(deployed("two_running"))
    config["deployments"][1]["ray_actor_options"] = {"num_cpus": 4}
    (wave,) = waves(running(), config, node("a", 3.0)).values()
    assert (wave.deployment, wave.needs, wave.fits) == ("Classifier", {"CPU": 4.0}, 0)
