import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import org.mlflow.api.proto.ModelRegistry.ModelVersion;
import org.mlflow.api.proto.Service.Experiment;
import org.mlflow.api.proto.Service.Metric;
import org.mlflow.api.proto.Service.Param;
import org.mlflow.api.proto.Service.Run;
import org.mlflow.api.proto.Service.RunInfo;
import org.mlflow.api.proto.Service.RunStatus;
import org.mlflow.api.proto.Service.RunTag;
import org.mlflow.api.proto.Service.ViewType;
import org.mlflow.tracking.ExperimentsPage;
import org.mlflow.tracking.MlflowClient;
import org.mlflow.tracking.MlflowClientException;
import org.mlflow.tracking.ModelVersionsPage;
import org.mlflow.tracking.RunsPage;

/** MLflow's Java client against a server: `Tracking URL POINTS`. */
public final class Tracking {
  private static final long TIME = 1717000000000L;

  private static void check(boolean right, String what) {
    if (!right) {
      throw new AssertionError(what);
    }
  }

  private static void same(Object wanted, Object got) {
    check(wanted.equals(got), "wanted " + wanted + ", got " + got);
  }

  private static double last(Run run, String key) {
    for (Metric metric : run.getData().getMetricsList()) {
      if (metric.getKey().equals(key)) {
        return metric.getValue();
      }
    }
    throw new AssertionError("no metric " + key);
  }

  private static String experiments(MlflowClient client) {
    String id = client.createExperiment("java");
    client.setExperimentTag(id, "team", "é");
    Experiment got = client.getExperiment(id);
    same("java", got.getName());
    same("é", got.getTags(0).getValue());
    same(id, client.getExperimentByName("java").get().getExperimentId());
    same(Optional.empty(), client.getExperimentByName("nope"));
    client.renameExperiment(id, "renamed");
    ExperimentsPage found = client.searchExperiments("name = 'renamed'");
    same(1, found.getItems().size());
    client.deleteExperiment(id);
    same("deleted", client.getExperiment(id).getLifecycleStage());
    client.restoreExperiment(id);
    return id;
  }

  private static void runs(MlflowClient client, String experiment) {
    RunInfo info = client.createRun(experiment);
    String id = info.getRunId();
    same(id, info.getRunUuid());
    client.logParam(id, "lr", "0.1");
    client.logMetric(id, "loss", 0.5, TIME, 0);
    client.logMetric(id, "loss", 0.25, TIME + 1, 7);
    client.logMetric(id, "nan", Double.NaN, TIME, 1);
    client.logMetric(id, "up", Double.POSITIVE_INFINITY, TIME, 1);
    client.logMetric(id, "down", Double.NEGATIVE_INFINITY, TIME, 1);
    client.setTag(id, "k", "v");
    client.setTag(id, "gone", "v");
    client.deleteTag(id, "gone");
    List<Metric> metrics = new ArrayList<>();
    for (double value : new double[] {1.5, Double.NaN, Double.POSITIVE_INFINITY, 0.0}) {
      metrics.add(
          Metric.newBuilder().setKey("b" + value).setValue(value).setTimestamp(TIME).setStep(3).build());
    }
    client.logBatch(
        id,
        metrics,
        List.of(Param.newBuilder().setKey("empty").setValue("").build()),
        List.of(RunTag.newBuilder().setKey("t").setValue("é").build()));
    Run run = client.getRun(id);
    same(0.25, last(run, "loss"));
    same(Double.NaN, last(run, "nan"));
    same(Double.POSITIVE_INFINITY, last(run, "up"));
    same(Double.NEGATIVE_INFINITY, last(run, "down"));
    same(Double.NaN, last(run, "bNaN"));
    same(0.0, last(run, "b0.0"));
    same(2, run.getData().getParamsCount());
    List<Metric> history = client.getMetricHistory(id, "loss");
    same(2, history.size());
    same(0L, history.get(0).getStep());
    same(TIME + 1, history.get(1).getTimestamp());
    try {
      client.logParam(id, "lr", "0.2");
      check(false, "a param changed");
    } catch (MlflowClientException refused) {
      check(refused.getMessage().contains("INVALID_PARAMETER_VALUE"), refused.getMessage());
    }
    client.setTerminated(id, RunStatus.FINISHED, TIME + 2);
    same(RunStatus.FINISHED, client.getRun(id).getInfo().getStatus());

    for (int number = 0; number < 3; number++) {
      client.logMetric(client.createRun(experiment).getRunId(), "val", number, TIME, 0);
    }
    List<RunInfo> few = client.searchRuns(List.of(experiment), "metrics.val > 0");
    same(2, few.size());
    RunsPage page =
        client.searchRuns(
            List.of(experiment), "", ViewType.ACTIVE_ONLY, 3, List.of("metrics.val DESC"));
    same(3, page.getItems().size());
    same(2.0, last(page.getItems().get(0), "val"));
    check(page.hasNextPage(), "no second page");
    same(0.25, last(page.getNextPage().getItems().iterator().next(), "loss"));
    client.deleteRun(id);
    same("deleted", client.getRun(id).getInfo().getLifecycleStage());
    client.restoreRun(id);
  }

  private static void longHistory(MlflowClient client, String experiment, int points) {
    String id = client.createRun(experiment).getRunId();
    for (int start = 0; start < points; start += 1000) {
      List<Metric> metrics = new ArrayList<>();
      for (int step = start; step < Math.min(points, start + 1000); step++) {
        metrics.add(
            Metric.newBuilder()
                .setKey("m")
                .setValue(step / 3.0)
                .setTimestamp(TIME + step)
                .setStep(step)
                .build());
      }
      client.logBatch(id, metrics, List.of(), List.of());
    }
    List<Metric> history = client.getMetricHistory(id, "m");
    same(points, history.size());
    for (int step = 0; step < points; step++) {
      same((long) step, history.get(step).getStep());
      same(step / 3.0, history.get(step).getValue());
    }
    pages(client, id, points);
  }

  /**
   * Pages of a history, read by hand: getMetricHistory itself asks for 25,000 points and fails on a second
   * page, because it adds to a list that cannot change; against any server.
   */
  private static void pages(MlflowClient client, String id, int points) {
    int size = points * 2 / 5;
    int seen = 0;
    String token = "";
    do {
      String answer =
          client.sendGet(
              "metrics/get-history?run_uuid=" + id + "&run_id=" + id + "&metric_key=m&max_results="
                  + size + token);
      seen += answer.split("\"step\":", -1).length - 1;
      String[] rest = answer.split("\"next_page_token\":\"", 2);
      token = rest.length > 1 ? "&page_token=" + rest[1].substring(0, rest[1].indexOf('"')) : "";
    } while (!token.isEmpty());
    same(points, seen);
  }

  private static void registry(MlflowClient client, String experiment) {
    String run = client.createRun(experiment).getRunId();
    client.sendPost("registered-models/create", "{\"name\": \"model\"}");
    client.sendPost(
        "model-versions/create",
        "{\"name\": \"model\", \"source\": \"runs:/" + run + "/model\", \"run_id\": \"" + run + "\"}");
    client.sendPost(
        "model-versions/transition-stage",
        "{\"name\": \"model\", \"version\": \"1\", \"stage\": \"Staging\"}");
    same("model", client.getRegisteredModel("model").getName());
    ModelVersion version = client.getModelVersion("model", "1");
    same("Staging", version.getCurrentStage());
    same(run, version.getRunId());
    same(1, client.getLatestVersions("model").size());
    same(1, client.getLatestVersions("model", List.of("Staging", "Production")).size());
    ModelVersionsPage found = client.searchModelVersions("name = 'model'");
    same(1, found.getItems().size());
    check(client.getModelVersionDownloadUri("model", "1").endsWith("/model"), "a wrong download URI");
  }

  public static void main(String[] arguments) {
    try (MlflowClient client = new MlflowClient(arguments[0])) {
      String experiment = experiments(client);
      runs(client, experiment);
      longHistory(client, experiment, Integer.parseInt(arguments[1]));
      registry(client, experiment);
    }
    System.out.println("the Java client agrees");
  }
}
