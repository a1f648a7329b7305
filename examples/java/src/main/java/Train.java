import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.StatusRuntimeException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.UUID;
import runstream.v1.ExperimentServiceGrpc;
import runstream.v1.Experiments;
import runstream.v1.MetricServiceGrpc;
import runstream.v1.Metrics;
import runstream.v1.RunServiceGrpc;
import runstream.v1.Runs;

/** Logs two metrics of a run over gRPC, reads them back, and compares. Arguments: HOST:PORT, number of steps. */
public final class Train {
  private static final Duration PATIENCE = Duration.ofMinutes(2);

  private Train() {}

  public static void main(String[] arguments) throws Exception {
    String target = arguments.length > 0 ? arguments[0] : "127.0.0.1:5001";
    int steps = arguments.length > 1 ? Integer.parseInt(arguments[1]) : 10_000;
    try {
      run(target, steps);
    } catch (StatusRuntimeException error) {
      System.err.println(target + " answers " + error.getStatus().getCode() + ": " + error.getMessage());
      System.exit(1);
    }
  }

  private static void run(String target, int steps) throws Exception {
    ManagedChannel channel = Grpc.newChannelBuilder(target, InsecureChannelCredentials.create()).build();
    try {
      String runId = createRun(channel, createExperiment(channel));
      int reconnects = train(channel, runId, steps);
      for (String key : List.of("loss", "accuracy")) compare(channel, runId, key, steps);
      finish(channel, runId);
      System.out.printf(
          "run %s: %d points logged, committed and read back equal; streams broken: %d%n",
          runId, 2L * steps, reconnects);
    } finally {
      channel.shutdownNow();
    }
  }

  private static String createExperiment(ManagedChannel channel) {
    String name = "java-" + UUID.randomUUID().toString().substring(0, 8);
    return ExperimentServiceGrpc.newBlockingStub(channel)
        .createExperiment(Experiments.CreateExperimentRequest.newBuilder().setName(name).build())
        .getExperimentId();
  }

  private static String createRun(ManagedChannel channel, String experimentId) {
    Runs.CreateRunRequest request =
        Runs.CreateRunRequest.newBuilder()
            .setExperimentId(experimentId)
            .setRunName("from java")
            .setStartTime(System.currentTimeMillis())
            .build();
    return RunServiceGrpc.newBlockingStub(channel).createRun(request).getRun().getInfo().getRunId();
  }

  private static int train(ManagedChannel channel, String runId, int steps) throws Exception {
    try (MetricSession session = new MetricSession(channel, runId)) {
      for (int step = 0; step < steps; step++) {
        session.log("loss", value("loss", step), step);
        session.log("accuracy", value("accuracy", step), step);
      }
      session.flush(PATIENCE);
      session.refused().forEach(unit -> System.err.println("refused: " + unit.getMessage()));
      return session.reconnects();
    }
  }

  private static double value(String key, int step) {
    return key.equals("loss") ? 1.0 / (step + 1) : Math.sqrt(step);
  }

  private static void compare(ManagedChannel channel, String runId, String key, int steps) {
    List<Metrics.Metric> points = history(channel, runId, key);
    if (points.size() != steps) {
      throw new AssertionError(key + ": " + points.size() + " points, not " + steps);
    }
    boolean[] seen = new boolean[steps];
    for (Metrics.Metric point : points) {
      int step = (int) point.getStep();
      if (seen[step] || point.getValue() != value(key, step)) throw new AssertionError(key + ": " + point);
      seen[step] = true;
    }
  }

  private static List<Metrics.Metric> history(ManagedChannel channel, String runId, String key) {
    MetricServiceGrpc.MetricServiceBlockingStub stub = MetricServiceGrpc.newBlockingStub(channel);
    Metrics.GetMetricHistoryRequest.Builder request =
        Metrics.GetMetricHistoryRequest.newBuilder().setRunId(runId).setMetricKey(key).setMaxResults(25_000);
    List<Metrics.Metric> points = new ArrayList<>();
    String token;
    do {
      Metrics.GetMetricHistoryResponse page = stub.getMetricHistory(request.build());
      points.addAll(page.getMetricsList());
      token = page.getNextPageToken();
      request.setPageToken(token);
    } while (!token.isEmpty());
    return points;
  }

  private static void finish(ManagedChannel channel, String runId) {
    Runs.UpdateRunRequest request =
        Runs.UpdateRunRequest.newBuilder()
            .setRunId(runId)
            .setStatus(Runs.RunStatus.RUN_STATUS_FINISHED)
            .setEndTime(System.currentTimeMillis())
            .build();
    RunServiceGrpc.newBlockingStub(channel).updateRun(request);
  }
}
