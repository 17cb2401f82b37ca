#!/usr/bin/env python3
"""The pictures of the playground, from a running service: docs/images/playground-*.png.

Start the demo model (`rayclassify serve`), then run this. It needs chromium and chromedriver.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait

from rayclassify_client import Client

IMAGES = Path(__file__).parents[1] / "docs" / "images"
MAX_BYTES = 150_000
REVIEW = "房间很干净，离地铁站也近，下次还会再来。"
MIXED = "房间很干净，离地铁站也近，但是早餐太差了，服务员态度也不好。"
REVIEWS = ["质量很好，会再来", "包装破了，客服也不理人", "书的内容不错，就是印刷差了点"]
# Long enough that the curves have a shape.
LOAD_S = 30.0


@dataclass(frozen=True, slots=True)
class Picture:
    """name: of the file. width, height: of the window, in pixels of CSS. why: with the text
    explained."""

    name: str
    language: str
    colours: str
    lines: tuple[str, ...]
    width: int = 1280
    height: int = 1080
    why: bool = False


PICTURES = (
    Picture("playground-light", "en", "light", (REVIEW,)),
    Picture("playground-dark", "en", "dark", (REVIEW,)),
    Picture("playground-zh", "zh-CN", "light", tuple(REVIEWS)),
)
WHY = (
    Picture("explain-light", "en", "light", (MIXED,), height=760, why=True),
    Picture("explain-dark", "en", "dark", (MIXED,), height=760, why=True),
)
PHONE = Picture("playground-phone", "en", "light", (REVIEW,), 360, 1560)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", nargs="?", default="http://127.0.0.1:8000")
    parser.add_argument("--directory", type=Path, default=IMAGES)
    parser.add_argument("--phone", action="store_true", help="one more, 360 pixels wide")
    parser.add_argument(
        "--why", action="store_true", help="of explanations only; the service has explain.enabled"
    )
    args = parser.parse_args()
    args.directory.mkdir(parents=True, exist_ok=True)
    pictures = WHY if args.why else (*PICTURES, *([PHONE] if args.phone else ()))
    with under_load(args.url):
        for picture in pictures:
            path = args.directory / f"{picture.name}.png"
            take(picture, args.url, path)
            size = path.stat().st_size
            print(f"{path.name}: {size:,} bytes")
            if size > MAX_BYTES:
                raise SystemExit(f"{path.name} has {size:,} bytes; the limit is {MAX_BYTES:,}.")


@contextmanager
def under_load(url: str) -> Iterator[None]:
    """Something to see in the curves: texts that come in waves."""
    ended = threading.Event()

    def ask() -> None:
        with Client(url) as client:
            wave = 0
            while not ended.is_set():
                list(client.classify_many([*REVIEWS, REVIEW] * (2 + 6 * (wave % 3)), batch_size=8))
                wave += 1
                ended.wait(0.3)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def take(picture: Picture, url: str, path: Path) -> None:
    """Writes one picture to this path."""
    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    with tempfile.TemporaryDirectory() as profile:
        for flag in (
            "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
            f"--user-data-dir={profile}",
        ):  # fmt: skip
            options.add_argument(flag)
        service = webdriver.ChromeService(str(shutil.which("chromedriver")))
        driver = webdriver.Chrome(options, service)
        try:
            prepare(driver, picture)
            driver.get(url.rstrip("/") + "/")
            if len(picture.lines) > 1:
                driver.find_element(By.CSS_SELECTOR, 'input[value="lines"]').click()
            field = driver.find_element(By.ID, "text")
            field.send_keys("\n".join(picture.lines))
            time.sleep(LOAD_S)
            # Asked once more, as the first answer of a page opens its connection.
            for key in (" ", Keys.BACKSPACE):
                field.send_keys(key)
                time.sleep(1.0)
            if picture.why:
                explain(driver)
            driver.save_screenshot(str(path))
        finally:
            driver.quit()


def explain(driver: webdriver.Chrome) -> None:
    """Asks why, and points at the part that says most."""
    driver.find_element(By.ID, "why").click()
    strongest = (
        "const share = (one) => Number(one.style.getPropertyValue('--share'));"
        "const parts = [...document.querySelectorAll('.marked .part')];"
        "return parts.toSorted((a, b) => share(b) - share(a))[0]"
    )
    most = WebDriverWait(driver, 60).until(lambda _: driver.execute_script(strongest))
    ActionChains(driver).move_to_element(most).perform()


def prepare(driver: webdriver.Chrome, picture: Picture) -> None:
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {
            "width": picture.width,
            "height": picture.height,
            "deviceScaleFactor": 1,
            "mobile": picture.width < 500,
        },
    )
    driver.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {"features": [{"name": "prefers-color-scheme", "value": picture.colours}]},
    )
    agent = driver.execute_script("return navigator.userAgent")
    driver.execute_cdp_cmd(
        "Emulation.setUserAgentOverride",
        {"userAgent": agent, "acceptLanguage": picture.language},
    )


if __name__ == "__main__":
    main()
