"""MLflow's client signs in by its usual variables, logs and reads; argv: experiment of another, a word."""

import pathlib
import sys

import mlflow
from mlflow.exceptions import MlflowException

mlflow.set_experiment("of mlflow " + sys.argv[2])
with mlflow.start_run() as run:
    mlflow.log_param("lr", 0.1)
    mlflow.log_metrics({"loss": 0.5, "accuracy": 0.9}, step=3)
    pathlib.Path("note.txt").write_text("text")
    mlflow.log_artifact("note.txt")
client = mlflow.MlflowClient()
read = client.get_run(run.info.run_id)
assert read.data.metrics == {"loss": 0.5, "accuracy": 0.9}, read
assert pathlib.Path(client.download_artifacts(run.info.run_id, "note.txt")).read_text() == "text"
client.create_registered_model("of mlflow " + sys.argv[2])
client.create_model_version("of mlflow " + sys.argv[2], f"{read.info.artifact_uri}/note.txt", run.info.run_id)
assert len(mlflow.search_runs(search_all_experiments=True)) == 1
try:
    client.get_experiment(sys.argv[1])
except MlflowException as error:
    assert error.error_code == "RESOURCE_DOES_NOT_EXIST", error.error_code
else:
    raise SystemExit("the experiment of another was read")
print(read.data.tags["mlflow.user"], read.info.user_id)
