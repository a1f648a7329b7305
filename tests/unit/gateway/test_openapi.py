"""The API document says what the routes and readers do, and the page shows all of it."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

from runstream_server.gateway.openapi import document
from runstream_server.gateway.page import page
from runstream_server.gateway.routes import RouteTable, services

COMMITTED = Path(__file__).resolve().parents[3] / "gen" / "openapi" / "runstream.json"
ROUTES = RouteTable(services()).routes
MADE = document(ROUTES)


def operations():
    return [(verb, path, each) for path, verbs in MADE["paths"].items() for verb, each in verbs.items()]


def test_the_committed_document_is_the_one_that_is_served():
    assert json.loads(COMMITTED.read_text()) == MADE, "run `make gen`"


def test_every_route_is_there_once():
    listed = sorted((verb.upper(), path) for verb, path, _ in operations())
    assert listed == sorted((route.verb, route.path.replace("=**}", "}")) for route in ROUTES)
    names = [each["operationId"] for _, _, each in operations()]
    assert len(set(names)) == len(names)


def test_path_variables_are_parameters():
    for _, path, each in operations():
        named = {one["name"] for one in each.get("parameters", ()) if one["in"] == "path"}
        assert named == set(re.findall(r"\{(\w+)\}", path)), path


def test_references_lead_somewhere():
    names = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(MADE)))
    assert names == MADE["components"]["schemas"].keys()


def test_types_are_those_of_the_wire():
    metric = MADE["components"]["schemas"]["Metric"]["properties"]
    assert metric["step"].items() >= {"type": "integer", "format": "int64"}.items()
    assert metric["value"]["anyOf"][1]["enum"] == ["NaN", "Infinity", "-Infinity"]
    assert "FINISHED" in MADE["components"]["schemas"]["RunInfo"]["properties"]["status"]["enum"]


def test_a_get_lists_its_query():
    found = MADE["paths"]["/api/2.0/mlflow/metrics/get-history"]["get"]
    assert {"run_id", "run_uuid", "metric_key", "page_token", "max_results", "source"} == {
        each["name"] for each in found["parameters"]
    }
    assert "requestBody" not in found


def test_every_operation_and_field_is_described():
    for verb, path, each in operations():
        assert each["description"], f"{verb} {path}"
        assert all(one.get("description") for one in each.get("parameters", ())), f"{verb} {path}"
    for name, schema in MADE["components"]["schemas"].items():
        if name != "Error":
            assert all(each.get("description") for each in schema["properties"].values()), name


def test_required_fields_limits_and_errors_are_those_of_the_contract():
    schemas = MADE["components"]["schemas"]
    assert schemas["LogMetricRequest"]["required"] == ["key", "value", "timestamp"], "run_uuid may be run_id"
    assert schemas["CreateExperimentRequest"]["properties"]["name"]["maxLength"] == 500
    assert schemas["LogBatchRequest"]["properties"]["metrics"]["maxItems"] == 1000
    assert schemas["SearchRunsRequest"]["properties"]["max_results"]["maximum"] == 50_000
    logged = MADE["paths"]["/api/2.0/mlflow/runs/log-metric"]["post"]
    assert logged["requestBody"]["required"]
    assert {"200", "400", "401", "403", "404", "429", "default"} == logged["responses"].keys()
    history = MADE["paths"]["/api/2.0/mlflow/metrics/get-history"]["get"]["parameters"]
    assert [each["name"] for each in history if each.get("required")] == ["metric_key"]


def test_a_static_prefix_is_in_the_servers():
    assert document(ROUTES, "/mlops/")["servers"] == [{"url": "/mlops"}]


def test_the_page_shows_every_path_and_loads_nothing():
    text = page(MADE).decode()
    tags = []

    class Tags(HTMLParser):
        def handle_starttag(self, tag, attrs):
            tags.append((tag, dict(attrs)))

    Tags().feed(text)
    assert not [tag for tag, values in tags if tag in ("script", "link", "img", "iframe") or "src" in values]
    anchors = {values["id"] for _, values in tags if "id" in values}
    targets = {values["href"] for tag, values in tags if tag == "a"}
    assert {target[1:] for target in targets if target.startswith("#")} <= anchors
    assert targets - {f"#{anchor}" for anchor in anchors} == {"openapi.json"}
    assert all(path in text for path in MADE["paths"])
