"""Every check has a config that breaks it, made from the good one by a single edit."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import AliasChoices, BaseModel, Field, ValidationError

from deployments.config.check import ConfigError, Problem, check_config, load_config
from deployments.config.keys import validation_problems
from deployments.config.ray_inside import HA_PROXY, THROUGHPUT

ROOT = Path(__file__).parents[2]
GOOD = load_config(ROOT / "serve_config.yaml")
TOKENIZER, CLASSIFIER, POSTPROCESSOR = (f"applications[0].deployments[{i}]" for i in range(3))
ARGS = "applications[0].args"


def edited(path: str, value: Any) -> dict[str, Any]:
    """A copy of the good config with `value` at `path`; `...` deletes the key."""
    config = copy.deepcopy(GOOD)
    *parents, last = yaml.safe_load(
        f"[{path.replace('[', '.').replace(']', '').replace('.', ',')}]"
    )
    inside: Any = config
    for key in parents:
        inside = inside[key] if isinstance(inside, list) else inside.setdefault(key, {})
    if value is ...:
        del inside[last]
    elif isinstance(inside, list) and last == len(inside):
        inside.append(value)
    else:
        inside[last] = value
    return config


def the_problem(config: dict[str, Any]) -> Problem:
    problems = check_config(config)
    assert len(problems) == 1, [str(p) for p in problems]
    return problems[0]


def test_the_good_config_has_no_problem() -> None:
    assert check_config(copy.deepcopy(GOOD)) == []


UNKNOWN_KEYS = [
    # where the misspelt key stands, and the word that the message must hold
    ("aplications", "applications"),
    ("http_options.request_timeout", "request_timeout_s"),
    ("grpc_options.prt", "port"),
    ("grpc_options.grpc_servicer_function", "grpc_servicer_functions"),
    ("logging_config.encodng", "encoding"),
    ("tracing_config.enable", "enabled"),
    ("controller_options.runtime_envs", "runtime_env"),
    ("applications[0].route_prefx", "route_prefix"),
    ("applications[0].logging_config.log_levl", "log_level"),
    ("applications[0].runtime_env.env_var", "env_vars"),
    ("applications[0].autoscaling_policy.policy_functio", "policy_function"),
    (f"{CLASSIFIER}.max_ongoing_request", "max_ongoing_requests"),
    (f"{CLASSIFIER}.num_cpus", "belongs under ray_actor_options"),
    (f"{CLASSIFIER}.max_replicas", "belongs under autoscaling_config"),
    (f"{CLASSIFIER}.ray_actor_options.num_gpu", "num_gpus"),
    (f"{CLASSIFIER}.ray_actor_options.runtime_env.workingdir", "working_dir"),
    (f"{CLASSIFIER}.autoscaling_config.max_replica", "max_replicas"),
    (f"{CLASSIFIER}.autoscaling_config.policy.policy_kwarg", "policy_kwargs"),
    (f"{CLASSIFIER}.request_router_config.backoff_multiplyer", "backoff_multiplier"),
    (f"{CLASSIFIER}.logging_config.log_dir", "logs_dir"),
    (f"{TOKENIZER}.backpressure_config.retry_after", "retry_after_s"),
    (f"{ARGS}.engin", "engine"),
    (f"{ARGS}.limits.max_pending_text", "max_pending_texts"),
    (f"{CLASSIFIER}.user_config.max_batch_token", "max_batch_tokens"),
    (f"{POSTPROCESSOR}.user_config.treshold", "threshold"),
]


@pytest.mark.parametrize(("path", "cure"), UNKNOWN_KEYS, ids=[p for p, _ in UNKNOWN_KEYS])
def test_misspelt_keys_are_found_at_every_level(path: str, cure: str) -> None:
    problem = the_problem(edited(path, {}))
    assert problem.path == path
    assert problem.message.startswith("unknown key; ")
    assert cure in problem.message


def test_the_message_is_the_documented_one() -> None:
    path = f"{CLASSIFIER}.autoscaling_config.max_replica"
    assert str(the_problem(edited(path, 3))) == f"{path}: unknown key; did you mean max_replicas?"


def test_a_key_like_no_other_gets_the_list_of_known_ones() -> None:
    message = the_problem(edited("tracing_config.x", 1)).message
    assert message == "unknown key; known here: enabled, exporter_import_path, sampling_ratio"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("controller_options.runtime_env.env_vars.ANY_NAME", "1"),
        ("applications[0].runtime_env", {"env_vars": {"ANY_NAME": "1"}}),
        (f"{CLASSIFIER}.ray_actor_options.resources", {"anything": 1}),
        (f"{CLASSIFIER}.ray_actor_options.label_selector", {"pool": "gpu"}),
        (f"{CLASSIFIER}.request_router_config", {"request_router_kwargs": {"anything": 1}}),
        (f"{CLASSIFIER}.user_config", None),
        ("applications[0].logging_config", None),
    ],
)
def test_free_dicts_are_left_alone(path: str, value: Any) -> None:
    assert check_config(edited(path, value)) == []


WRONG_VALUES = [
    ("proxy_location", "Everywhere", "proxy_location", "EveryNode"),
    ("http_options.port", "eighty", "http_options.port", "got 'eighty'"),
    ("applications", None, "applications", "valid list; got null"),
    ("applications", ..., "applications", "required"),
    ("applications[0].import_path", ..., "applications[0].import_path", "required"),
    ("applications[0].deployments[0]", "x", TOKENIZER, "valid dictionary; got 'x'"),
    (f"{ARGS}", None, ARGS, "got null"),
    (f"{CLASSIFIER}.ray_actor_options", [1], f"{CLASSIFIER}.ray_actor_options", "got a list"),
    (f"{CLASSIFIER}.ray_actor_options.num_gpus", -1, None, "got -1"),
    (f"{CLASSIFIER}.max_ongoing_requests", 0, None, "got 0"),
    (f"{CLASSIFIER}.max_queued_requests", 0, CLASSIFIER, "-1 (no limit)"),
    (f"{CLASSIFIER}.autoscaling_config.min_replicas", 3, f"{CLASSIFIER}.autoscaling_config", "(2)"),
    (
        f"{CLASSIFIER}.autoscaling_config.initial_replicas",
        9,
        f"{CLASSIFIER}.autoscaling_config",
        "9",
    ),
    (f"{CLASSIFIER}.autoscaling_config.target_ongoing_requests", 0, None, "got 0"),
    (
        f"{CLASSIFIER}.autoscaling_config.policy",
        {"policy_function": "no_such_module:f"},
        f"{CLASSIFIER}.autoscaling_config",
        "no_such_module",
    ),
    (f"{CLASSIFIER}.request_router_config.max_backoff_s", -1, None, "got -1"),
    (
        f"{CLASSIFIER}.gang_scheduling_config",
        {"gang_size": "x"},
        f"{CLASSIFIER}.gang_scheduling_config.gang_size",
        "got 'x'",
    ),
    (f"{TOKENIZER}.backpressure_config.status_code", 500, None, "503 or 429"),
    ("http_options.port", 0, None, "0 is no port; set it to 1 to 65535"),
    ("http_options.port", 70_000, None, "70000 is no port"),
    ("grpc_options.port", 0, None, "0 is no port; set it to 1 to 65535, as 9000"),
    (
        "grpc_options",
        {"port": 8000, "grpc_servicer_functions": ["deployments.grpc.servicer:add_to_server"]},
        "grpc_options.port",
        "8000 is http_options.port too",
    ),
    (
        "grpc_options.grpc_servicer_functions",
        ["deployments.grpc.servicer:add_to_servr"],
        "grpc_options.grpc_servicer_functions[0]",
        "did you mean deployments.grpc.servicer:add_to_server?",
    ),
    ("applications[0].import_path", "deployments.app:biuld", None, "mean deployments.app:build?"),
    (f"{ARGS}.engine.device", 1, None, "valid string"),
    (f"{ARGS}.engine.device", "gpu", None, "no device; write auto, cpu, cuda, cuda:1"),
    (f"{ARGS}.batching.min_gap_ms", float("inf"), None, "finite number"),
    (f"{ARGS}.model.temperature", float("inf"), None, "finite number"),
    (f"{ARGS}.limits.max_body_bytes", "2000000", None, "valid integer"),
    (f"{ARGS}.engine.name", None, None, "got null"),
    (f"{CLASSIFIER}.user_config.max_batch_tokens", 0, None, "got 0"),
    (f"{CLASSIFIER}.user_config", [1], None, "dictionary"),
    (f"{POSTPROCESSOR}.user_config.threshold", 1.5, None, "got 1.5"),
]


@pytest.mark.parametrize(
    ("path", "value", "where", "words"), WRONG_VALUES, ids=[f"{p}={v}" for p, v, *_ in WRONG_VALUES]
)
def test_wrong_values_are_found_where_they_stand(
    path: str, value: Any, where: str | None, words: str
) -> None:
    problem = the_problem(edited(path, value))
    assert problem.path == (where or path)
    assert words in problem.message


CROSS_CHECKS = [
    # the edit, where the problem is reported, and the numbers that its message must hold
    (f"{ARGS}.limits.request_timeout_s", 60.0, None, ["60 s", "raise"]),
    (f"{ARGS}.limits.max_batch_texts", 9000, None, ["9000", "8192", "429"]),
    (f"{ARGS}.limits.max_pending_texts", 10240, f"{TOKENIZER}.max_ongoing_requests", ["10240"]),
    (f"{TOKENIZER}.max_ongoing_requests", 5, None, ["5 must", "8192"]),
    (f"{ARGS}.limits.max_held_body_bytes", 1_000_000, None, ["1000000 bytes", "2000000 or more"]),
    (f"{TOKENIZER}.graceful_shutdown_timeout_s", 49, None, ["49 s", "50 s", "above 50"]),
    (f"{CLASSIFIER}.autoscaling_config.downscale_delay_s", 9.0, None, ["9 s", "10 s"]),
    (f"{CLASSIFIER}.autoscaling_config.metrics_interval_s", 10.0, "look_back_period_s", ["10 s"]),
    (f"{CLASSIFIER}.num_replicas", 3, None, ["3 replicas", "delete num_replicas"]),
    (f"{CLASSIFIER}.user_config.max_queue_tokens", 4095, None, ["4095", "4096"]),
    (f"{TOKENIZER}.name", "Tokeniser", None, ["did you mean Tokenizer?"]),
    ("applications[0].deployments[2]", ..., "applications[0].deployments", ["Postprocessor"]),
    (
        "applications[0].deployments[3]",
        GOOD["applications"][0]["deployments"][1],
        "applications[0].deployments[3].name",
        ["Classifier", "twice"],
    ),
    ("controller_options.runtime_env.env_vars.RAY_SERVE_ENABLE_HA_PROXY", "true", None, ["'true'"]),
    ("applications[0].route_prefix", "classify", None, ["'classify'", "begin with /"]),
    ("applications[0].route_prefix", "/classify/", None, ["'/classify/'"]),
    ("applications[0].route_prefix", "/{name}", None, ["braces"]),
    (
        "controller_options.runtime_env.env_vars.RAY_SERVE_ENABLE_HA_PROXY",
        "0",
        "controller_options.runtime_env.env_vars.RAY_SERVE_THROUGHPUT_OPTIMIZED",
        ['RAY_SERVE_ENABLE_HA_PROXY: "1"'],
    ),
]


@pytest.mark.parametrize(
    ("path", "value", "where", "words"), CROSS_CHECKS, ids=[c[0] for c in CROSS_CHECKS]
)
def test_numbers_that_contradict_one_another(
    path: str, value: Any, where: str | None, words: list[str]
) -> None:
    problems = check_config(edited(path, value))
    expected = where or path
    found = [p for p in problems if p.path.endswith(expected)]
    assert len(found) == 1, [str(p) for p in problems]
    for word in words:
        assert word in found[0].message


def test_ray_does_not_repeat_what_we_say_better() -> None:
    assert the_problem(edited(f"{CLASSIFIER}.num_replicas", 3)).path.endswith("num_replicas")


def test_limits_that_are_just_right_pass() -> None:
    assert check_config(edited(f"{ARGS}.limits.request_timeout_s", 59.0)) == []
    assert check_config(edited(f"{TOKENIZER}.graceful_shutdown_timeout_s", 50.0)) == []
    assert check_config(edited(f"{CLASSIFIER}.autoscaling_config.downscale_delay_s", 10.0)) == []
    assert check_config(edited(f"{CLASSIFIER}.user_config.max_queue_tokens", 4096)) == []
    assert check_config(edited("controller_options", None)) == []
    for route in ("/", "/classify", "/v1/classify", None):
        assert check_config(edited("applications[0].route_prefix", route)) == []


def test_other_applications_keep_their_own_args() -> None:
    config = edited("applications[0].import_path", "other.module:app")
    config["applications"][0]["args"] = {"anything": 1}
    config["applications"][0]["deployments"] = [{"name": "Other", "user_config": {"a": 1}}]
    assert check_config(config) == []


def test_several_problems_are_all_reported() -> None:
    config = edited("http_options.ports", 1)
    config["applications"][0]["deployments"][1]["autoscaling_config"]["max_replica"] = 1
    config["applications"][0]["args"]["limits"] = {"request_timeout_s": 60.0}
    assert [p.path for p in check_config(config)] == [
        "http_options.ports",
        f"{CLASSIFIER}.autoscaling_config.max_replica",
        f"{ARGS}.limits.request_timeout_s",
    ]


def test_the_config_is_not_changed_by_the_check() -> None:
    config = edited(f"{CLASSIFIER}.num_replicas", 3)
    before = copy.deepcopy(config)
    check_config(config)
    assert config == before


def all_paths(value: Any, path: str = "") -> list[str]:
    items = value.items() if isinstance(value, dict) else enumerate(value)
    found: list[str] = []
    for key, item in items:
        inner = f"{path}.{key}".removeprefix(".")
        found += [inner, *(all_paths(item, inner) if isinstance(item, (dict, list)) else [])]
    return found


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    st.sampled_from(all_paths(GOOD)),
    st.sampled_from([None, 0, -1, 1.5, True, "x", [], [None], [[]], {}, {"a": 1}, {1: 2}]),
)
def test_whatever_stands_anywhere_the_check_answers(path: str, value: Any) -> None:
    assert all(p.message for p in check_config(edited(path, value)))


class _Leaf(BaseModel):
    size: int = 0


class _Tree(BaseModel):
    plain: _Leaf | None = None
    listed: list[_Leaf] = []
    inner: list[Annotated[_Leaf, "why"]] = []
    mapped: dict[str, _Leaf] = {}
    renamed: int = Field(0, alias="new-name")
    choice: int = Field(0, validation_alias=AliasChoices("one", "two"))


@pytest.mark.parametrize(
    ("value", "problems"),
    [
        ({"plain": {"siz": 1}}, {"plain.siz": "did you mean size?"}),
        (
            {"plain": None, "listed": [{"size": 1}, {"siz": 1}]},
            {"listed[1].siz": "did you mean size?"},
        ),
        ({"inner": [{"siz": 1}]}, {"inner[0].siz": "did you mean size?"}),
        ({"mapped": {"a": {"siz": 1}}}, {"mapped.a.siz": "did you mean size?"}),
        ({"size": 1}, {"size": "it belongs under plain"}),
        ({"new-name": 1, "two": 2}, {}),
        ({"new-nam": 1}, {"new-nam": "did you mean new-name?"}),
        ({"listed": {}}, {"listed": "valid list; got a mapping"}),
    ],
)
def test_the_near_name_is_found_behind_every_kind_of_annotation(
    value: Any, problems: dict[str, str]
) -> None:
    found = []
    try:
        _Tree.model_validate(value, extra="forbid")
    except ValidationError as error:
        found = list(validation_problems(error, value, _Tree))
    assert [problem.path for problem in found] == list(problems)
    assert all(words in one.message for one, words in zip(found, problems.values(), strict=True))


UNREADABLE = [
    ("a: 1\nb: 2\na: 3\n", "line 3: duplicate key 'a', first on line 1; keep one of the two."),
    ("a:\n  - x: 1\n    x: 2\n", "line 3: duplicate key 'x', first on line 2"),
    ("a: {x: 1, x: 2}\n", "line 1: duplicate key 'x'"),
    ("a: [1\nb: 2\n", "line 2: "),
    ("a:\n\t- 1\n", "line 2: "),
    ("", "holds nothing"),
    ("- 1\n", "holds list"),
    ("a: 1\n---\nb: 2\n", "line 2: "),
    ("a: !!python/object:os.system {}\n", "line 1: "),
    ("a: 2020-13-45\n", "month must be in 1..12. Put values that are text in quotes."),
    ("a: " + "[" * 20_000, "nested too deeply"),
]


@pytest.mark.parametrize(("text", "words"), UNREADABLE, ids=[t[:30] for t, _ in UNREADABLE])
def test_unreadable_files_give_one_clear_line(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        load_config(path)
    assert words in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_and_other_bytes_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such file"):
        load_config(tmp_path / "nowhere.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9\n")
    with pytest.raises(ConfigError, match="byte 9 is not UTF-8"):
        load_config(tmp_path / "latin.yaml")


def test_anchors_and_merges_are_no_duplicates(tmp_path: Path) -> None:
    path = tmp_path / "merged.yaml"
    path.write_text("base: &base {a: 1, b: 2}\nchild: {<<: *base, a: 3}\nother: *base\n")
    assert load_config(path)["child"] == {"a": 3, "b": 2}


def test_importing_the_check_does_not_import_ray() -> None:
    code = "import sys, deployments.config.check; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_the_check_starts_no_ray() -> None:
    code = (
        "import pathlib, ray\n"
        "from deployments.config.check import check_config, load_config\n"
        "assert check_config(load_config(pathlib.Path('serve_config.yaml'))) == []\n"
        "assert not ray.is_initialized()"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_tls_and_serves_haproxy_exclude_each_other() -> None:
    config = copy.deepcopy(GOOD)
    config["http_options"] |= {"ssl_certfile": "cert.pem", "ssl_keyfile": "key.pem"}
    (problem,) = check_config(config)
    assert problem.path == "http_options.ssl_certfile"
    assert "docs/tls/haproxy.cfg" in problem.message
    config["controller_options"]["runtime_env"]["env_vars"] |= {HA_PROXY: "0", THROUGHPUT: "0"}
    assert check_config(config) == []


def test_a_jwt_without_issuer_and_audience_is_no_proof() -> None:
    config = copy.deepcopy(GOOD)
    config["applications"][0]["args"]["access"] = {"jwt_jwks": "https://login.example.com/jwks"}
    (problem,) = check_config(config)
    assert "jwt_issuer and jwt_audience" in problem.message
