"""Models: sklearn, autologging, registry, prompts; run with MLflow's own environment."""

import time

import mlflow
import numpy
from mlflow import MlflowClient
from mlflow.models import infer_signature
from sklearn.linear_model import LogisticRegression

client = MlflowClient()
x = numpy.array([[0.0, 1.0], [1.0, 0.0], [0.2, 0.9], [0.9, 0.1]])
y = numpy.array([0, 1, 0, 1])


def sklearn_model() -> None:
    """log_model, load_model, logged models and the registry."""
    mlflow.set_experiment("sklearn")
    model = LogisticRegression().fit(x, y)
    with mlflow.start_run() as run:
        info = mlflow.sklearn.log_model(
            model,
            name="clf",
            signature=infer_signature(x, y),
            registered_model_name="Clf",
            input_example=x[:1],
        )
        mlflow.log_metric("accuracy", 1.0, model_id=info.model_id)
    assert (mlflow.sklearn.load_model(info.model_uri).predict(x) == y).all()
    for uri in ("models:/Clf/1", f"models:/{info.model_id}", f"runs:/{run.info.run_id}/clf"):
        assert (mlflow.pyfunc.load_model(uri).predict(x) == y).all(), uri
    client.set_registered_model_alias("Clf", "champion", 1)
    assert (mlflow.pyfunc.load_model("models:/Clf@champion").predict(x) == y).all()
    client.transition_model_version_stage("Clf", 1, "Production")
    assert (mlflow.pyfunc.load_model("models:/Clf/Production").predict(x) == y).all()
    logged = mlflow.get_logged_model(info.model_id)
    assert logged.status == "READY" and logged.metrics[0].value == 1.0
    found = mlflow.search_logged_models(
        experiment_ids=[run.info.experiment_id], filter_string="metrics.accuracy > 0.5", output_format="list"
    )
    assert [m.model_id for m in found] == [info.model_id]
    assert client.get_run(run.info.run_id).outputs.model_outputs[0].model_id == info.model_id
    assert "MLmodel" in {f.path for f in client.list_logged_model_artifacts(info.model_id)}
    client.set_logged_model_tags(info.model_id, {"a": "b"})
    client.delete_logged_model_tag(info.model_id, "a")


def autolog() -> None:
    """mlflow.sklearn.autolog records params, metrics and the model."""
    mlflow.set_experiment("autolog")
    mlflow.sklearn.autolog()
    with mlflow.start_run() as run:
        LogisticRegression(C=0.5).fit(x, y)
    mlflow.sklearn.autolog(disable=True)
    got = client.get_run(run.info.run_id)
    assert got.data.params["C"] == "0.5"
    assert "training_accuracy_score" in got.data.metrics
    assert got.outputs.model_outputs


def registry() -> None:
    """The registry's client calls."""
    client.create_registered_model("R", tags={"a": "b"}, description="d")
    run = client.create_run("0").info
    version = client.create_model_version("R", f"{run.artifact_uri}/m", run.run_id, tags={"x": "y"})
    assert str(version.version) == "1"
    client.update_model_version("R", 1, "text")
    client.set_model_version_tag("R", 1, "k", "v")
    client.delete_model_version_tag("R", 1, "k")
    client.set_registered_model_alias("R", "a", 1)
    assert client.get_model_version_by_alias("R", "a").description == "text"
    client.delete_registered_model_alias("R", "a")
    assert client.get_latest_versions("R", ["None"])[0].run_id == run.run_id
    assert [v.name for v in client.search_model_versions("name = 'R'")] == ["R"]
    assert [m.name for m in client.search_registered_models("name LIKE 'R%'")] == ["R"]
    copied = client.copy_model_version("models:/R/1", "Copy")
    assert copied.source == "models:/R/1"
    client.rename_registered_model("R", "S")
    assert client.get_model_version("S", 1).source.endswith("/m")
    client.delete_model_version("S", 1)
    client.delete_registered_model("S")


def prompts() -> None:
    """Prompts are kept in the registry."""
    first = mlflow.genai.register_prompt("greet", "Hello {{name}}", commit_message="first", tags={"a": "b"})
    second = mlflow.genai.register_prompt("greet", "Hi {{name}}")
    assert (first.version, second.version) == (1, 2)
    loaded = mlflow.genai.load_prompt("prompts:/greet/1")
    assert loaded.format(name="x") == "Hello x"
    mlflow.genai.set_prompt_alias("greet", "live", 2)
    assert mlflow.genai.load_prompt("prompts:/greet@live").template == "Hi {{name}}"
    assert [p.name for p in mlflow.genai.search_prompts()] == ["greet"]
    assert not [m for m in client.search_registered_models() if m.name == "greet"]
    mlflow.genai.delete_prompt_alias("greet", "live")


for test in (sklearn_model, autolog, registry, prompts):
    start = time.time()
    test()
    print(f"{test.__name__} {time.time() - start:.1f} s")
