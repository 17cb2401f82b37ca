"""A real browser uses the playground: a real model answers, and the network is looked at."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import axe_core_python
import pytest
from chromium import PATIENCE_S, chromium, hosts_asked, needs_chromium
from local_service import LocalService
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.select import Select
from selenium.webdriver.support.wait import WebDriverWait
from served import serving
from starlette.applications import Starlette
from starlette.routing import Mount

from deployments.access.keys import hash_of, new_token
from deployments.http.app import create_app
from deployments.settings import AccessSettings, LimitSettings

pytestmark = needs_chromium

AXE = Path(axe_core_python.__file__).with_name("axe.min.js").read_text(encoding="utf-8")
GOOD, BAD = "质量很好，会再来", "包装破了，客服也不理人"


@pytest.fixture(scope="module")
def service(demo_model: Path) -> Iterator[LocalService]:
    service = LocalService(demo_model)
    yield service
    service.local.close()


@pytest.fixture(scope="module")
def address(service: LocalService) -> Iterator[str]:
    """Under a prefix, as Serve mounts it for `route_prefix: /nlp`."""
    app = Starlette(routes=[Mount("/nlp", create_app(service, LimitSettings()))])
    with serving(app) as url:
        yield f"{url}/nlp/"


@pytest.fixture(scope="module")
def one_browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    with chromium(tmp_path_factory.mktemp("chromium"), "--lang=en") as driver:
        yield driver


class Page:
    """The playground as a person sees it."""

    def __init__(self, browser: webdriver.Chrome) -> None:
        self.browser = browser
        self.hosts: set[str] = set()  # that may be asked

    def open(self, address: str) -> None:
        self.hosts.add(urlsplit(address).netloc)
        self.browser.get(address)
        self.until(lambda: self["model"].text)

    def __getitem__(self, name: str) -> WebElement:
        return self.browser.find_element(By.ID, name)

    def find(self, selector: str) -> list[WebElement]:
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def texts(self, selector: str) -> list[str]:
        """At one moment: what is drawn anew takes its elements away."""
        every = (
            "return [...document.querySelectorAll(arguments[0])].map(one => one.innerText.trim())"
        )
        return self.browser.execute_script(every, selector)

    def until(self, what: Callable[[], Any]) -> Any:
        # The page may draw anew between two looks at it.
        stale = [StaleElementReferenceException]
        return WebDriverWait(self.browser, PATIENCE_S, 0.05, stale).until(lambda _: what())

    def choose(self, name: str, value: str) -> None:
        self.find(f'input[name="{name}"][value="{value}"]')[0].click()

    def write(self, text: str, field: str = "text") -> None:
        """As pasted: all of it in one event."""
        self.browser.execute_script(
            "const [field, text] = arguments; field.value = text;"
            "field.dispatchEvent(new Event('input', {bubbles: true}))",
            self[field],
            text,
        )

    def events(self, name: str) -> list[dict[str, Any]]:
        """What the network did since it was asked last."""
        log = self.browser.get_log("performance")
        events = [json.loads(entry["message"])["message"] for entry in log]
        return [event["params"] for event in events if event["method"] == name]

    def long_text(self, how: str) -> None:
        Select(self["long-text"]).select_by_value(how)

    def code(self, language: str) -> str:
        self.choose("code", language)
        return self["snippet"].text


@pytest.fixture
def page(one_browser: webdriver.Chrome, address: str) -> Iterator[Page]:
    """Freshly opened, with nothing kept of another test; quiet and among itself in the end."""
    page = Page(one_browser)
    one_browser.get(address)
    one_browser.execute_script("localStorage.clear(); sessionStorage.clear()")
    one_browser.get_log("browser")
    one_browser.get_log("performance")
    page.open(address)
    yield page
    assert one_browser.get_log("browser") == []
    assert hosts_asked(one_browser) <= page.hosts


def test_labels_follow_what_is_typed_and_earlier_requests_end(page, service):
    page["text"].send_keys(GOOD)
    page.until(lambda: page.texts(".single .label") == ["positive"])
    assert page.texts(".bars .name") == ["positive", "negative"]
    assert page["said"].get_attribute("textContent").startswith("positive, ")
    assert page.texts("#stage-list dt") == ["network", "HTTP", "tokenizing", "waiting", "model"]

    asked, service.delay_s = service.asked, 3.0
    page.write(GOOD + GOOD)
    page.until(lambda: service.asked == asked + 1)
    service.delay_s = 0.0
    page.write(BAD)
    page.until(lambda: page.texts(".single .label") == ["negative"])
    cancelled = [one for one in page.events("Network.loadingFailed") if one["canceled"]]
    assert len(cancelled) == 1


def test_lines_pairs_and_options(page):
    page["top-k"].send_keys("1")
    page.choose("mode", "lines")
    page.write(f"{GOOD}\n\n{BAD}\n")
    page.until(lambda: page.texts(".rows .label") == ["positive", "negative"])

    page.write("\n".join([GOOD] * 201))
    page.until(lambda: len(page.find(".rows li")) == 200)
    assert "201 lines; this page shows the first 200." in page["results"].text

    page.choose("mode", "pair")
    page.write(GOOD)
    page.until(lambda: page.texts(".empty") == ["Write both halves of the pair."])
    page.write(BAD, "text-pair")
    page.until(lambda: page.find(".single .label"))
    assert len(page.find(".bars li")) == 1
    page["raw"].click()
    page.until(lambda: "%" not in page.find(".single .figure")[0].text)


def test_lines_written_while_an_answer_was_under_way_are_not_counted_in_it(page, service):
    page.choose("mode", "lines")
    asked, service.delay_s = service.asked, 1.0
    page.write(GOOD)
    page.until(lambda: service.asked == asked + 1)
    service.delay_s = 0.0
    more = "arguments[0].value = arguments[1]"  # no event yet: a typist's pause is not over
    page.browser.execute_script(more, page["text"], f"{GOOD}\n{BAD}")
    page.until(lambda: page.texts(".rows .label") == ["positive"])
    assert "shows the first" not in page["results"].text


def test_the_place_is_shown_where_a_text_was_cut(page):
    page.write("这家店很好。" * 200)
    page.until(lambda: page.find("del"))
    note = page.texts(".cut .small")[0]
    assert note.startswith("Cut after character ")
    assert "of 1,200. The model read 512 tokens" in note
    kept = page.texts(".around span")[0].removeprefix("…")
    assert len(kept) == 90
    assert (kept + page.texts(".around del")[0])[:120] in "这家店很好。" * 40

    page.long_text("error")
    page.until(lambda: "the limit is 512" in page["notice"].text)
    assert not page.find(".single")
    # The browser itself notes a 413 in the console.
    assert "413" in page.browser.get_log("browser")[0]["message"]


def test_of_a_text_in_windows_the_one_that_decided_is_marked(page, service):
    assert page.texts("#long-text option") == ["cut", "read in windows", "refuse"]
    # 😀 is one character for the service and two for a browser.
    text = "😀昨天下午收到了包裹，快递员放在门口。" * 40 + "太差了，再也不买，很失望。" * 40
    page.long_text("window")
    page.write(text)
    page.until(lambda: page.find(".window mark"))
    answer = service.local.classify(text, long_text="window")
    assert answer["label"] == page.texts(".single .label")[0] == "negative"
    deciding = answer["windows"]["deciding"]
    assert deciding["start"] > 0
    mark = page.find(".window mark")[0]
    assert mark.get_attribute("textContent") == text[deciding["start"] : deciding["end"]]
    box = page.find(".window")[0]
    assert box.get_attribute("textContent").startswith("…")
    visible = "return arguments[0].offsetTop - arguments[1].offsetTop - arguments[1].scrollTop"
    assert 0 <= page.browser.execute_script(visible, mark, box) < 200
    note = page.texts(".windows .small")[0]
    assert note.startswith(f"Read whole, in {answer['windows']['count']} windows. ")
    assert f"characters {deciding['start'] + 1:,} to {deciding['end']:,}" in note
    assert '"long_text":"window"' in page.code("curl")
    assert 'long_text="window"' in page.code("python")
    assert faults(page) == []

    page.long_text("truncate")
    page.until(lambda: page.find("del"))
    assert not page.find(".window")
    assert "long_text" not in page.code("curl")


@pytest.fixture(scope="module")
def doubtful(demo_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalService]:
    """A model that abstains unless it is nearly certain, and gives label sets; in a cascade."""
    model = Path(shutil.copytree(demo_model, tmp_path_factory.mktemp("doubtful") / "model"))
    told = {"temperature": 1.0, "abstain_below": 0.999, "label_set_from": 0.001}
    (model / "calibration.json").write_text(json.dumps(told))
    service = LocalService(model)
    yield service
    service.local.close()


def test_who_answered_and_how_sure_is_told(page, doubtful):
    def marks_of(threshold: float, *, fails: bool = False) -> list[str]:
        doubtful.threshold, doubtful.large_fails = threshold, fails
        asked = doubtful.asked
        page.write(GOOD)
        page.until(lambda: doubtful.asked == asked + 1 and page.find(".marks"))
        page.until(lambda: not page["results"].get_attribute("aria-busy"))
        return page.texts(".single .marks span")

    with serving(create_app(doubtful, LimitSettings())) as url:
        page.open(url)
        sets = "May well be: positive, negative"
        assert marks_of(0.0) == ["Small model", "Abstains: it is not sure enough", sets]
        assert marks_of(1.0) == ["Large model", "Abstains: below 99.9 %", sets]
        small, *_ = marks_of(1.0, fails=True)
        assert small == "Small model, unsure: the large one could not answer"
        assert page.texts(".marks .doubt")[0] == small
        assert len(page.find(".bars .chosen")) == 2
        assert small in page["said"].get_attribute("textContent")
        assert faults(page) == []

        page.choose("mode", "lines")
        page.write(f"{GOOD}\n{BAD}")
        page.until(lambda: len(page.texts(".rows .marks")) == 2)
        page["language"].click()
        page.until(lambda: "小模型，不确定：大模型未能回答" in page.texts(".marks span"))


def test_why_marks_the_text_and_tells_each_part(page, service):
    text = "房间很干净，就是早餐太差了 👩‍👩‍👧"
    page.write(text)
    page.until(lambda: page.find("#why"))
    assert not page.find(".marked")
    page["why"].click()
    page.until(lambda: page.find(".marked .part"))
    assert page.texts(".marked") == [text]
    assert "👩‍👩‍👧" in page.texts(".marked .part")
    assert page.find(".marked .for")
    assert page.find(".marked .against")
    assert len(page.texts(".legend .part")) == 2
    assert page.texts("#strongest")[0].startswith("Most: ")

    first, second, *_ = page.find(".marked .part")
    page.browser.execute_script("arguments[0].focus()", first)
    said = page["part-value"].text
    assert said.startswith(f"“{first.text}” ")
    first.send_keys(Keys.ARROW_RIGHT)
    assert page.browser.switch_to.active_element == second
    assert page["part-value"].text.startswith(f"“{second.text}” ")
    assert faults(page) == []

    page.write(GOOD)
    page.until(lambda: not page.find(".marked"))


def test_where_nothing_is_explained_nobody_is_offered_it(page, service, address):
    service.explains = False
    try:
        page.open(address)
        page.write(GOOD)
        page.until(lambda: page.find(".single"))
        assert not page.find("#why")
    finally:
        service.explains = True


def test_the_code_shown_gives_the_answer_shown(page):
    page["top-k"].send_keys("1")
    page.write("“It's” " + GOOD)
    page.until(lambda: page.find(".single"))
    label = page.texts(".single .label")[0]

    curl = subprocess.run(["bash", "-c", page.code("curl")], capture_output=True, check=True)
    assert json.loads(curl.stdout)["label"] == label

    python = subprocess.run(
        [sys.executable, "-c", page.code("python")], capture_output=True, text=True, check=True
    )
    assert label in python.stdout

    shown = page.code("javascript").replace("console.log", "done")
    answer = page.browser.execute_async_script(
        f"const done = arguments[arguments.length - 1];(async () => {{ {shown} }})()"
    )
    assert (answer["label"], len(answer["scores"])) == (label, 1)

    page["copy"].click()
    page.until(lambda: page["copy"].text == "Copied")


def test_a_table_comes_back_with_labels_and_errors_row_by_row(page, tmp_path):
    table = tmp_path / "reviews.csv"
    rows = [f'{i},"{GOOD}, ""{i}"""' if i % 2 else f"{i},{BAD}" for i in range(300)]
    rows[7] = "7,"
    table.write_text("number,review\r\n" + "\r\n".join(rows) + "\r\n", encoding="gb18030")
    page.browser.execute_cdp_cmd(
        "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)}
    )

    page.choose("mode", "csv")
    page["file"].send_keys(str(table))
    page.until(lambda: page["run"].is_displayed())
    assert page.texts("#column option") == ["number", "review"]
    assert page["column"].get_attribute("value") == "1"
    page["start"].click()
    page.until(
        lambda: page["said"].get_attribute("textContent") == "Done: 300 rows, 1 with an error."
    )
    assert page.find("progress")[0].get_attribute("value") == "1"
    assert page.texts("tbody tr:nth-child(2) .label") == ["positive"]
    assert "empty" in page.texts("tbody tr:nth-child(8) .why")[0]

    page["download"].click()
    labelled = tmp_path / "reviews-labelled.csv"
    page.until(labelled.exists)
    read = labelled.read_text(encoding="utf-8-sig").splitlines()
    assert read[0] == "number,review,label,score,error"
    assert read[2].startswith(f'1,"{GOOD}, ""1""",positive,')
    assert len(read) == 301
    assert read[8].startswith("7,,,,text is empty")
    assert "--text-column 'review'" in page.code("curl")


def test_a_key_is_asked_for_kept_in_the_tab_and_refusals_say_what_to_do(page, service, tmp_path):
    tokens = {name: new_token() for name in ("shop", "poor", "explainer", "admin")}
    more: dict[str, dict[str, Any]] = {
        "poor": {"texts_per_day": 1},
        "explainer": {"scopes": ["explain"]},
        "admin": {"scopes": ["admin"]},
    }
    keys = [{"id": n, "sha256": hash_of(v), **more.get(n, {})} for n, v in tokens.items()]
    (tmp_path / "keys.json").write_text(json.dumps({"keys": keys}))
    access = AccessSettings(keys_file=str(tmp_path / "keys.json"))

    def use(key: str) -> None:
        if not page["key-dialog"].is_displayed():
            page["key-open"].click()
        page["key"].clear()
        page["key"].send_keys(key, Keys.ENTER)

    with serving(create_app(service, LimitSettings(), access)) as url:
        page.hosts.add(urlsplit(url).netloc)
        page.browser.get(url)
        page.until(lambda: page["key-dialog"].is_displayed())
        assert "asks for a key" in page["notice"].get_attribute("textContent")
        use("nonsense")
        page.until(lambda: "not valid" in page["notice"].get_attribute("textContent"))
        use(tokens["explainer"])
        page.until(lambda: page["model"].text)
        page.write(GOOD)
        page.until(lambda: "scope classify" in page["notice"].text)
        use(tokens["shop"])
        page.until(lambda: page.texts(".single .label") == ["positive"])
        assert "scope admin" in page["state-note"].text
        assert not page["state"].is_displayed()
        assert "$RAYCLASSIFY_KEY" in page.code("curl")
        assert tokens["shop"] not in page.browser.page_source
        use(tokens["poor"])
        page.until(lambda: "Trying again in" in page["notice"].text)
        use(tokens["admin"])
        page.until(lambda: page["state"].is_displayed())

        kept = "return [localStorage.length, document.cookie, sessionStorage['rayclassify.key']]"
        assert page.browser.execute_script(kept) == [0, "", tokens["admin"]]
        page.browser.switch_to.new_window("tab")
        page.browser.get(url)
        page.until(lambda: page["key-dialog"].is_displayed())
        page.browser.close()
        page.browser.switch_to.window(page.browser.window_handles[0])
        # The browser itself notes each 401, 403 and 429 in the console.
        noted = [entry["message"] for entry in page.browser.get_log("browser")]
        assert all("Failed to load resource" in message for message in noted)


def test_the_state_moves_with_the_load_and_is_asked_only_while_somebody_looks(page, service):
    page.until(lambda: page["state"].is_displayed())
    assert page.texts(".replicas .name") == ["Tokenizer", "Classifier", "Postprocessor"]

    def tokens_per_s() -> int:
        return int(page.texts(".tile .big")[0].replace(",", ""))

    page.choose("mode", "lines")
    page.write("\n".join([GOOD] * 20))
    page.until(lambda: tokens_per_s() > 0)
    assert "20.0" in page.texts(".tile .big")[2]

    page.browser.execute_script(
        "window.asked = 0; const old = window.fetch;"
        "window.fetch = (...given) => { window.asked += 1; return old(...given); };"
        "Object.defineProperty(document, 'visibilityState', {value: 'hidden', configurable: true});"
        "document.dispatchEvent(new Event('visibilitychange'))"
    )
    hidden = "setTimeout(arguments[arguments.length - 1], 2500, window.asked)"
    page.browser.execute_async_script(hidden)
    assert page.browser.execute_script("return window.asked") == 0
    page.browser.execute_script(
        "delete document.visibilityState; document.dispatchEvent(new Event('visibilitychange'))"
    )
    page.until(lambda: page.browser.execute_script("return window.asked"))


def faults(page: Page) -> list[str]:
    """What axe-core finds that matters to somebody who can't see, or has only a keyboard."""
    page.browser.execute_script(AXE)
    found = page.browser.execute_async_script("axe.run().then(arguments[arguments.length - 1])")[
        "violations"
    ]
    return [
        f"{one['id']}: {[node['html'] for node in one['nodes']][:3]}"
        for one in found
        if one["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize(("colours", "language"), [("light", "en"), ("dark", "zh")])
def test_axe_finds_nothing_in_either_language_and_colours(page, service, colours, language):
    page.browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {"features": [{"name": "prefers-color-scheme", "value": colours}]},
    )
    if language == "zh":
        page["language"].click()
        assert page.find("h1")[0].text == "输入文本，得到标签。"
        assert page.find("html")[0].get_attribute("lang") == "zh-CN"
    page.write("这家店很好。" * 200)
    page.until(lambda: page.find("del"))
    page.until(lambda: page["state"].is_displayed())
    assert faults(page) == []
    service.delay_s = 15.0  # an answer under way, which the next text ends
    page.write("包装破了。" * 200)
    page.until(lambda: page["results"].get_attribute("aria-busy"))
    service.delay_s = 0.0
    assert faults(page) == []
    assert page["results"].get_attribute("aria-busy")
    page.choose("mode", "lines")
    page.write(f"{GOOD}\n{BAD}")
    page.until(lambda: page.texts(".rows .label") == ["positive", "negative"])
    assert faults(page) == []
    page.choose("mode", "csv")
    assert faults(page) == []
    page["key-open"].click()
    assert faults(page) == []
    page["key-close"].click()
    page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_dark_and_chinese_are_kept_and_a_phone_has_room(page, address):
    def background() -> str:
        return page.find("body")[0].value_of_css_property("background-color")

    light = background()
    page["theme"].click()
    assert background() != light
    page["language"].click()
    page.open(address)
    assert background() != light
    assert page["theme"].get_attribute("aria-pressed") == "true"
    assert page.texts("h1") == ["输入文本，得到标签。"]

    page.browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": True},
    )
    page.write("这家店很好。" * 200)
    page.until(lambda: page.find("del"))
    for mode in ("one", "pair", "lines", "csv"):
        page.choose("mode", mode)
        widths = "return [document.documentElement.scrollWidth, window.innerWidth]"
        assert page.browser.execute_script(widths) == [360, 360]
    page.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_keyboard_is_enough(page):
    def focused() -> WebElement:
        return page.browser.switch_to.active_element

    focused().send_keys(Keys.TAB, Keys.ENTER)
    assert focused().get_attribute("id") == "text"
    focused().send_keys(GOOD)
    page.until(lambda: page.texts(".single .label") == ["positive"])
    page.find('input[name="mode"][value="one"]')[0].send_keys(Keys.ARROW_RIGHT)
    page.until(lambda: page.find(".rows"))
    page["key-open"].send_keys(Keys.ENTER)
    assert focused().get_attribute("id") == "key"
    focused().send_keys(Keys.ESCAPE)
    assert focused().get_attribute("id") == "key-open"
