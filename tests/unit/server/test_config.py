"""Settings: what wins, what is refused, and what Kubernetes puts into the environment."""

import pytest

from runstream_server.config import SETTINGS, SettingError, Settings, is_loopback
from runstream_server.environment import CLIENT_VARIABLES, unknown_variables


def test_defaults_serve_an_embedded_store_on_loopback() -> None:
    settings = Settings.from_args({})
    assert (settings.host, settings.port, settings.grpc_port) == ("127.0.0.1", 5000, 5001)
    assert settings.backend_store_uri == "./runstream-data"
    assert settings.serve_artifacts


def test_arguments_win_over_the_environment_and_that_over_defaults() -> None:
    env = {"RUNSTREAM_PORT": "6000", "RUNSTREAM_GRPC_PORT": "6001"}
    settings = Settings.from_args(env, port=7000, host=None)
    assert (settings.port, settings.grpc_port, settings.host) == (7000, 6001, "127.0.0.1")


def test_empty_variables_are_as_if_not_set() -> None:
    assert Settings.from_args({"RUNSTREAM_PORT": " "}).port == 5000


@pytest.mark.parametrize(("text", "value"), [("1", True), ("off", False), ("TRUE", True), ("no", False)])
def test_flags_are_read_in_all_their_spellings(text: str, value: bool) -> None:
    assert Settings.from_args({"RUNSTREAM_SERVE_ARTIFACTS": text}).serve_artifacts is value


def test_lists_are_separated_by_commas() -> None:
    env = {"RUNSTREAM_ALLOWED_ARTIFACT_STORES": "s3://a/b, /mnt/c,"}
    assert Settings.from_args(env).allowed_artifact_stores == ("s3://a/b", "/mnt/c")


def test_the_s3_endpoint_may_come_from_mlflows_variable_and_ours_wins() -> None:
    env = {"MLFLOW_S3_ENDPOINT_URL": "http://a"}
    assert Settings.from_args(env).s3_endpoint_url == "http://a"
    assert Settings.from_args({**env, "RUNSTREAM_S3_ENDPOINT_URL": "http://b"}).s3_endpoint_url == "http://b"


@pytest.mark.parametrize("text", ["tcp://10.0.0.1:5000", "udp://10.0.0.1:53"])
def test_a_port_that_kubernetes_injected_is_ignored(text: str) -> None:
    assert Settings.from_args({"RUNSTREAM_PORT": text, "RUNSTREAM_GRPC_PORT": text}).port == 5000


@pytest.mark.parametrize(
    "overrides",
    [
        {"port": -1},
        {"port": 65536},
        {"port": 5001},
        {"workers": 0},
        {"max_body_bytes": 10},
        {"call_timeout": -1.0},
        {"static_prefix": "runs"},
        {"static_prefix": "/runs/"},
        {"registry_store_uri": "postgresql://elsewhere/x"},
        {"log_level": "LOUD"},
    ],
    ids=str,
)
def test_values_that_cannot_be_used_are_refused_by_name(overrides: dict[str, object]) -> None:
    with pytest.raises(SettingError, match=next(iter(overrides))):
        Settings.from_args({}, **overrides)


@pytest.mark.parametrize("text", ["five", "1.5", "0x10", "9" * 30])
def test_a_variable_that_is_no_number_is_refused_by_name(text: str) -> None:
    with pytest.raises(SettingError, match="RUNSTREAM_PORT"):
        Settings.from_args({"RUNSTREAM_PORT": text})


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.com", "localhost.example.com"])
def test_other_machines_are_let_in_only_on_purpose(host: str) -> None:
    with pytest.raises(SettingError, match="--insecure-no-auth"):
        Settings.from_args({}, host=host)
    assert Settings.from_args({}, host=host, insecure_no_auth=True).host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost"])
def test_loopback_needs_no_permission(host: str) -> None:
    assert is_loopback(host)
    assert Settings.from_args({}, host=host).host == host


def test_a_registry_in_the_same_database_is_fine() -> None:
    uri = "postgresql://db/x"
    assert Settings.from_args({}, backend_store_uri=uri, registry_store_uri=uri).registry_store_uri == uri


def test_mistyped_variables_are_found_and_those_of_others_are_not() -> None:
    env = {
        "RUNSTREAM_PROT": "5000",
        "RUNSTREAM_BACKEND_URI": "x",
        "RUNSTREAM_PORT": "5000",
        "RUNSTREAM_TRACKING_URI": "grpc://x:1",
        "RUNSTREAM_TEST_DSN": "x",
        "RUNSTREAM_SERVICE_HOST": "10.0.0.1",
        "RUNSTREAM_SERVICE_PORT": "5000",
        "RUNSTREAM_SERVICE_PORT_HTTP": "5000",
        "RUNSTREAM_PORT_5000_TCP_ADDR": "10.0.0.1",
        "RUNSTREAM_GRPC_PORT_5001_TCP": "tcp://10.0.0.1:5001",
        "PATH": "/bin",
    }
    assert unknown_variables(env) == ["RUNSTREAM_BACKEND_URI", "RUNSTREAM_PROT"]


def test_every_variable_of_the_client_is_known() -> None:
    from runstream._config import SETTINGS as CLIENT_SETTINGS

    variables = {name for row in CLIENT_SETTINGS for name in row.variables if name.startswith("RUNSTREAM_")}
    assert variables <= CLIENT_VARIABLES
    assert not variables & {name for row in SETTINGS for name in row.variables}, "one name, two meanings"
