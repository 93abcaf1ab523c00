"""A browser opens what the demo left serving: MLflow's pages and the service's description.

UPDATE_DOCS_PICTURES=http://127.0.0.1:5000/#/models/fastgan-aug/versions/1 makes the picture in
docs/ again, from any demo that was left serving.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from toy import COUNTS
from toy_demo import Demo

pytestmark = pytest.mark.integration
PICTURE = Path(__file__).parents[2] / "docs" / "mlflow-version.png"
PAGE = os.environ.get("UPDATE_DOCS_PICTURES", "")
WAIT_SECONDS = 60
OPTIONS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--no-proxy-server", "--window-size=1280,1400", "--lang=en",
)  # fmt: skip
LOADED_SAMPLES = """
return Array.from(document.images).some(
  image => image.naturalWidth > 64 && /samples/.test(decodeURIComponent(image.src) + image.alt))
"""
CLOSE_ASSISTANT = """
const button = document.querySelector("[data-component-id='mlflow.assistant.chat_panel.close']")
button?.click()
return !button
"""


def program(*names: str) -> str:
    """The first of the programs that is there."""
    for name in names:
        if found := shutil.which(name):
            return found
    pytest.skip(f"none of {', '.join(names)} is installed")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    chromium = program("chromium", "chromium-browser", "google-chrome")
    driver = program("chromedriver")
    # Selenium would otherwise look for newer drivers, and tell how it is used.
    os.environ |= {"SE_AVOID_STATS": "true", "SE_OFFLINE": "true"}
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for option in (*OPTIONS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(option)
    opened = webdriver.Chrome(options=options, service=Service(driver))
    opened.set_page_load_timeout(WAIT_SECONDS)
    yield opened
    opened.quit()


def text(browser: Any) -> str:
    """What a person reads on the page."""
    return str(browser.execute_script("return document.body.innerText"))


def wait_for(browser: Any, what: str, holds: Any) -> None:
    """Waits until ``holds()``; MLflow's pages are drawn by scripts that ask the server."""
    from selenium.common.exceptions import TimeoutException
    from selenium.webdriver.support.ui import WebDriverWait

    try:
        WebDriverWait(browser, WAIT_SECONDS, poll_frequency=0.25).until(lambda _: holds())
    except TimeoutException:
        pytest.fail(f"{what} does not appear on {browser.current_url}:\n{text(browser)[:3000]}")


def wait_for_texts(browser: Any, *wanted: str) -> None:
    for one in wanted:
        wait_for(browser, repr(one), lambda one=one: one in text(browser))


def test_the_versions_page_shows_run_data_and_samples(demo: Demo, browser: Any) -> None:
    results = demo.results
    browser.get(f"{demo.tracking_uri}/#/models/{demo.model}/versions/{demo.version}")
    wait_for_texts(browser, demo.model, "toy-shapes", results["train_digest"], *COUNTS)
    links = "return Array.from(document.links).map(link => link.href)"
    wait_for(
        browser, "a link to the run",
        lambda: any(results["run_id"] in link for link in browser.execute_script(links)),
    )  # fmt: skip
    wait_for(browser, "the sample grid", lambda: browser.execute_script(LOADED_SAMPLES))


def test_the_runs_page_shows_data_and_parameters(demo: Demo, browser: Any) -> None:
    run_id = demo.results["run_id"]
    experiment = httpx.get(
        f"{demo.tracking_uri}/api/2.0/mlflow/runs/get", params={"run_id": run_id}, trust_env=False
    ).json()["run"]["info"]["experiment_id"]
    page = f"{demo.tracking_uri}/#/experiments/{experiment}/runs/{run_id}"
    browser.get(page)
    wait_for_texts(browser, "toy-shapes", demo.results["train_digest"][:8], "training.images")
    browser.get(f"{page}/artifacts/images")
    wait_for_texts(browser, "samples-640")


def test_the_service_describes_itself(demo: Demo, browser: Any) -> None:
    described = httpx.get(f"{demo.url}/openapi.json", trust_env=False).json()
    paths = {"/v1/balanced-batch", "/v1/model", "/v1/health/live", "/v1/health/ready"}
    assert paths <= set(described["paths"])
    browser.get(f"{demo.url}/docs")  # drawn by scripts of the service itself, not of a CDN
    wait_for_texts(browser, *paths)
    loaded = "return performance.getEntriesByType('resource').map(entry => entry.name)"
    assert [u for u in browser.execute_script(loaded) if not u.startswith(demo.url)] == []


@pytest.mark.skipif(not PAGE, reason="UPDATE_DOCS_PICTURES does not name a version's page")
def test_the_picture_in_the_documents(browser: Any) -> None:
    browser.get(PAGE)
    wait_for(browser, "the sample grid", lambda: browser.execute_script(LOADED_SAMPLES))
    time.sleep(2)  # MLflow opens its assistant beside the page a moment later
    wait_for(browser, "the page alone", lambda: browser.execute_script(CLOSE_ASSISTANT))
    time.sleep(1)
    PICTURE.parent.mkdir(exist_ok=True)
    assert browser.save_screenshot(str(PICTURE))
