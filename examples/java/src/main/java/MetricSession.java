import io.grpc.Channel;
import io.grpc.Status;
import io.grpc.stub.StreamObserver;
import java.time.Duration;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.EnumSet;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.UUID;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import runstream.v1.MetricServiceGrpc;
import runstream.v1.Metrics;

/**
 * Logs the points of one run over StreamMetrics, each exactly once.
 *
 * <p>{@link #log} puts a point into a buffer. A thread cuts batches from it and sends them; a batch is kept
 * until the server says that it is committed. When the stream breaks, the thread opens the session anew: the
 * server answers with its watermark, the first sequence that is not committed, and the thread goes on there.
 * The server drops what it has already, so a batch that is sent twice counts once.
 */
public final class MetricSession implements AutoCloseable {
  private static final int BATCH_POINTS = 5_000;
  private static final int BATCHES_AHEAD = 8;
  private static final int MOST_WAITING = 200_000;
  private static final long HEARTBEAT_MS = 10_000;
  private static final long FIRST_PAUSE_MS = 50;
  private static final long LONGEST_PAUSE_MS = 5_000;
  private static final Set<Status.Code> FINAL =
      EnumSet.of(
          Status.Code.INVALID_ARGUMENT,
          Status.Code.UNAUTHENTICATED,
          Status.Code.PERMISSION_DENIED,
          Status.Code.UNIMPLEMENTED);

  private static final class Point {
    final int series;
    final long step;
    final long timestamp;
    final double value;

    Point(int series, long step, long timestamp, double value) {
      this.series = series;
      this.step = step;
      this.timestamp = timestamp;
      this.value = value;
    }
  }

  private final String sessionId = UUID.randomUUID().toString();
  private final String runId;
  private final MetricServiceGrpc.MetricServiceStub stub;
  private final Thread sender = new Thread(this::send, "metric-session");

  // Guarded by this.
  private final Map<String, Integer> numbers = new HashMap<>();
  private final List<Metrics.SeriesEntry> dictionary = new ArrayList<>();
  private final List<Metrics.RefusedUnit> refused = new ArrayList<>();
  private final Deque<Point> waiting = new ArrayDeque<>();
  private long logged;
  private long committed;
  private int reconnects;
  private boolean closing;
  private RuntimeException failure;

  // Of the sender's thread alone.
  private final Deque<Metrics.MetricBatch> unacknowledged = new ArrayDeque<>();
  private long cut;

  /** Starts a session that writes to a run which exists. */
  public MetricSession(Channel channel, String runId) {
    this.stub = MetricServiceGrpc.newStub(channel);
    this.runId = runId;
    sender.setDaemon(true);
    sender.start();
  }

  /**
   * Logs a point; waits only while 200,000 points are not yet sent.
   *
   * @throws IllegalStateException when the server has refused the session, or it is closed
   */
  public synchronized void log(String key, double value, long step) throws InterruptedException {
    while (waiting.size() >= MOST_WAITING && failure == null) wait();
    check();
    if (closing) throw new IllegalStateException("the session is closed");
    int series = numbers.computeIfAbsent(key, this::declare);
    waiting.add(new Point(series, step, System.currentTimeMillis(), value));
    logged++;
    notifyAll();
  }

  /**
   * Waits until everything logged so far is committed.
   *
   * @throws TimeoutException when it is not in time; it stays in the buffer and is sent on
   * @throws IllegalStateException when the server has refused the session
   */
  public synchronized void flush(Duration timeout) throws InterruptedException, TimeoutException {
    long end = System.nanoTime() + timeout.toNanos();
    long wanted = logged;
    while (committed < wanted) {
      check();
      long left = TimeUnit.NANOSECONDS.toMillis(end - System.nanoTime());
      if (left <= 0) throw new TimeoutException((wanted - committed) + " points are not yet committed");
      wait(left);
    }
  }

  /** Returns what the server refused; such points are acknowledged and not stored. */
  public synchronized List<Metrics.RefusedUnit> refused() {
    return List.copyOf(refused);
  }

  /** Returns how often the stream broke and was opened again. */
  public synchronized int reconnects() {
    return reconnects;
  }

  /** Ends the session. What is not committed by then is lost: flush first. */
  @Override
  public void close() throws InterruptedException {
    synchronized (this) {
      closing = true;
      notifyAll();
    }
    sender.join();
  }

  private Integer declare(String key) {
    int number = dictionary.size();
    dictionary.add(Metrics.SeriesEntry.newBuilder().setSeries(number).setRunId(runId).setKey(key).build());
    return number;
  }

  private void check() {
    if (failure != null) throw failure;
  }

  private void send() {
    long pause = FIRST_PAUSE_MS;
    while (true) {
      long before = committed();
      Stream stream = new Stream();
      try {
        stream.run();
        return;
      } catch (InterruptedException stop) {
        stream.cancel();
        return;
      } catch (RuntimeException broken) {
        stream.cancel();
        if (isFinal(broken)) {
          fail(new IllegalStateException("the server refuses the session: " + broken.getMessage(), broken));
          return;
        }
      }
      pause = committed() > before ? FIRST_PAUSE_MS : Math.min(LONGEST_PAUSE_MS, 2 * pause);
      if (!rest(pause / 2 + ThreadLocalRandom.current().nextLong(pause))) return;
    }
  }

  private static boolean isFinal(RuntimeException error) {
    return error instanceof IllegalStateException || FINAL.contains(Status.fromThrowable(error).getCode());
  }

  /** Waits between two streams; returns false when there will be no other. */
  private synchronized boolean rest(long milliseconds) {
    long end = System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(milliseconds);
    try {
      for (long left = milliseconds; left > 0 && !closing; ) {
        wait(left);
        left = TimeUnit.NANOSECONDS.toMillis(end - System.nanoTime());
      }
    } catch (InterruptedException stop) {
      return false;
    }
    reconnects++;
    return !closing;
  }

  private synchronized long committed() {
    return committed;
  }

  private synchronized void fail(RuntimeException error) {
    failure = error;
    notifyAll();
  }

  /** Says up to where the server has committed, and forgets the batches before. */
  private void acknowledge(long watermark) {
    while (!unacknowledged.isEmpty() && end(unacknowledged.peek()) <= watermark) unacknowledged.remove();
    synchronized (this) {
      committed = Math.max(committed, watermark);
      notifyAll();
    }
  }

  private static long end(Metrics.MetricBatch batch) {
    return batch.getFirstSequence() + batch.getCount();
  }

  /** Cuts a batch from what waits; returns null when nothing does. */
  private synchronized Metrics.MetricBatch cut(int declared) {
    if (waiting.isEmpty()) return null;
    int count = Math.min(BATCH_POINTS, waiting.size());
    Metrics.RunBatch.Builder columns = Metrics.RunBatch.newBuilder().setRunId(runId);
    for (int i = 0; i < count; i++) {
      Point point = waiting.remove();
      columns.addSeries(point.series).addStep(point.step);
      columns.addTimestamp(point.timestamp).addValue(point.value);
    }
    Metrics.MetricBatch batch =
        Metrics.MetricBatch.newBuilder()
            .setSessionId(sessionId)
            .setFirstSequence(cut)
            .setCount(count)
            .addAllDictionary(dictionary.subList(declared, dictionary.size()))
            .addRuns(columns)
            .build();
    cut += count;
    notifyAll();
    return batch;
  }

  /** One StreamMetrics call. Answers come on a thread of gRPC and are taken one by one by the sender's. */
  private final class Stream implements StreamObserver<Metrics.StreamMetricsResponse> {
    private final BlockingQueue<Object> answers = new LinkedBlockingQueue<>();
    private final StreamObserver<Metrics.StreamMetricsRequest> requests = stub.streamMetrics(this);
    private int declared;
    private long sent;
    private boolean opened;

    @Override
    public void onNext(Metrics.StreamMetricsResponse answer) {
      put(answer);
    }

    @Override
    public void onError(Throwable error) {
      put(Status.fromThrowable(error).asRuntimeException());
    }

    @Override
    public void onCompleted() {
      put(Status.UNAVAILABLE.withDescription("the server ended the stream").asRuntimeException());
    }

    private void put(Object answer) {
      answers.add(answer);
      synchronized (MetricSession.this) {
        MetricSession.this.notifyAll();
      }
    }

    /** Returns when the session is closed. Throws StatusRuntimeException when the stream is broken. */
    void run() throws InterruptedException {
      open();
      while (true) {
        for (Object answer; (answer = answers.poll()) != null; ) take(answer);
        if (opened) sendBatches();
        if (!await()) break;
      }
      requests.onNext(
          Metrics.StreamMetricsRequest.newBuilder()
              .setClose(Metrics.CloseSession.newBuilder().setSessionId(sessionId))
              .build());
      requests.onCompleted();
      answers.clear();
      answers.poll(5, TimeUnit.SECONDS); // the server's end of the stream
    }

    void cancel() {
      try {
        requests.onError(Status.CANCELLED.asRuntimeException());
      } catch (IllegalStateException ended) {
        // It has ended already.
      }
    }

    private void open() {
      Metrics.OpenSession.Builder open = Metrics.OpenSession.newBuilder();
      synchronized (MetricSession.this) {
        open.setSessionId(sessionId).setNextSequence(committed).addAllDictionary(dictionary);
        declared = dictionary.size();
      }
      open.addRuns(Metrics.RunDeclaration.newBuilder().setRunId(runId));
      requests.onNext(Metrics.StreamMetricsRequest.newBuilder().setOpen(open).build());
    }

    private void take(Object answer) throws InterruptedException {
      if (answer instanceof RuntimeException) throw (RuntimeException) answer;
      Metrics.StreamMetricsResponse frame = (Metrics.StreamMetricsResponse) answer;
      if (frame.hasOpened()) {
        acknowledge(frame.getOpened().getNextSequence());
        opened = true;
        // The watermark: everything from there on is sent, again if it was sent before.
        sent = frame.getOpened().getNextSequence();
      } else if (frame.hasAck()) {
        acknowledge(frame.getAck().getNextSequence());
      } else if (frame.hasRefused()) {
        refuse(frame.getRefused());
      } else if (frame.hasThrottle()) {
        Thread.sleep(frame.getThrottle().getRetryAfterMs());
      }
    }

    private void refuse(Metrics.RefusedUnit unit) {
      String field = unit.getField();
      if (field.equals("session_id") || field.equals("declarations")) {
        throw new IllegalStateException(unit.getReason() + ": " + unit.getMessage());
      }
      synchronized (MetricSession.this) {
        refused.add(unit);
      }
    }

    private void sendBatches() {
      for (Metrics.MetricBatch batch : unacknowledged) {
        if (batch.getFirstSequence() >= sent) send(batch);
      }
      while (unacknowledged.size() < BATCHES_AHEAD) {
        Metrics.MetricBatch batch = cut(declared);
        if (batch == null) return;
        declared += batch.getDictionaryCount();
        unacknowledged.add(batch);
        send(batch);
      }
    }

    private void send(Metrics.MetricBatch batch) {
      requests.onNext(Metrics.StreamMetricsRequest.newBuilder().setBatch(batch).build());
      sent = end(batch);
    }

    /** Waits for an answer or for points, with a heartbeat when neither comes; false: the session closes. */
    private boolean await() throws InterruptedException {
      synchronized (MetricSession.this) {
        boolean mayCut = opened && !waiting.isEmpty() && unacknowledged.size() < BATCHES_AHEAD;
        if (closing) return false;
        if (!answers.isEmpty() || mayCut) return true;
        MetricSession.this.wait(HEARTBEAT_MS);
        if (closing || !answers.isEmpty() || !waiting.isEmpty()) return !closing;
      }
      requests.onNext(
          Metrics.StreamMetricsRequest.newBuilder()
              .setHeartbeat(Metrics.SessionHeartbeat.newBuilder().setSessionId(sessionId))
              .build());
      return true;
    }
  }
}
