"""The description is the behaviour: requests drawn from it are answered as it says."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from fastgan_aug.engines.mlflow_server import free_port
from serving.server.app import create_app
from serving.server.tokens import TokenStore, entry_text, make_token
from tests.served import TWO_COUNTS, TWO_FACTORS, FolderModels, lineage, tiny_checkpoint

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]
CHECKS = (
    not_a_server_error, status_code_conformance, content_type_conformance,
    response_headers_conformance, response_schema_conformance,
)  # fmt: skip
LAB, SLOW = make_token("lab", "admin"), make_token("slow", "admin", requests_per_minute=5)
CALLERS = {"lab": LAB[0], "slow": SLOW[0], "unknown": "fga_wrong"}


@pytest.fixture(scope="module")
def url(tmp_path_factory) -> Iterator[str]:
    """The application on a real server; few images of an answer, few requests of one token."""
    folder = tmp_path_factory.mktemp("model") / "checkpoint"
    app = create_app(
        FolderModels(tiny_checkpoint(folder, lineage(TWO_FACTORS, TWO_COUNTS))),
        most_images=200,
        tokens=TokenStore(lambda: entry_text(LAB[1]) + entry_text(SLOW[1]), lambda: None),
    )
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        thread.join(0.05)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(20)


@pytest.fixture(scope="module")
def description(url):
    return schemathesis.openapi.from_url(f"{url}/openapi.json")


PATHS = ("/v1/balanced-batch", "/v1/plan", "/v1/model", "/v1/status", "/v1/health/live",
         "/v1/health/ready")  # fmt: skip


def test_every_path_is_drawn_from(description):
    assert set(description.raw_schema["paths"]) == set(PATHS)


@pytest.mark.parametrize("caller", list(CALLERS))
@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("path", PATHS)
def test_what_is_drawn_is_answered_as_described(description, path, mode, caller):
    (method,) = description.raw_schema["paths"][path]
    operation = description[path][method.upper()]
    if mode is GenerationMode.NEGATIVE and method == "get" and path != "/v1/model":
        return  # nothing that could be wrong
    seen: set[int] = set()

    @settings(
        max_examples=60 if method == "post" else 15,
        deadline=None,
        phases=(Phase.generate,),
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(
        case=operation.as_strategy(generation_mode=mode),
        counts=st.none() | st.dictionaries(st.sampled_from(list(TWO_COUNTS)), st.integers(0, 90)),
    )
    def run(case, counts) -> None:
        if method == "post" and counts is not None and isinstance(case.body, dict):
            case.body["counts"] = counts  # cells that the model has: some are answered with images
        response = case.call(headers={"authorization": f"Bearer {CALLERS[caller]}"})
        case.validate_response(response, checks=CHECKS)
        seen.add(response.status_code)
        assert response.status_code != 500
        if response.status_code in (429, 503):
            assert int(response.headers["retry-after"][0]) >= 1

    run()
    if caller == "unknown" and "health" not in path:
        assert seen == {401}
    elif caller == "slow" and "health" not in path:
        assert 429 in seen
    elif method == "post":
        assert seen >= ({200, 422} if mode is GenerationMode.POSITIVE else {422})
