# What MLflow's R client sends, sent by the libraries that it sends it with: every scalar as a string, nulls
# dropped, run_id and run_uuid both, bodies on DELETE and PATCH; anything but 200 is an error. CRAN's package
# itself is not here: Rscript tracking.R URL
library(httr)
library(jsonlite)

url <- commandArgs(trailingOnly = TRUE)[[1]]

rest <- function(path, ..., verb = "POST", query = NULL, expect = 200) {
  data <- list(...)
  data <- data[!vapply(data, is.null, logical(1))]
  full <- paste0(url, "/api/2.0/mlflow/", path)
  as_text <- function(x) if (is.list(x)) lapply(x, as_text) else as.character(x)
  headers <- add_headers(`User-Agent` = "mlflow-r-client/2.17.2", `Content-Type` = "application/json")
  answer <- switch(verb,
    GET = GET(full, headers, query = query),
    POST = POST(full, headers, body = toJSON(as_text(data), auto_unbox = TRUE)),
    PATCH = PATCH(full, headers, body = toJSON(as_text(data), auto_unbox = TRUE)),
    DELETE = DELETE(full, headers, body = toJSON(as_text(data), auto_unbox = TRUE))
  )
  text <- content(answer, "text", encoding = "UTF-8")
  if (answer$status_code != expect) stop(paste(path, answer$status_code, text))
  invisible(fromJSON(text, simplifyVector = FALSE))
}

experiment <- rest("experiments/create", name = "r", artifact_location = NULL)$experiment_id
rest("experiments/set-experiment-tag", experiment_id = experiment, key = "k", value = "v")
stopifnot(rest("experiments/get", verb = "GET", query = list(experiment_id = experiment))$experiment$name == "r")
rest("experiments/get-by-name", verb = "GET", query = list(experiment_name = "nope"), expect = 404)
rest("experiments/search", filter = "name = 'r'", max_results = 10, view_type = "ACTIVE_ONLY", order_by = NULL)

start <- 1717000000000
run <- rest("runs/create", experiment_id = experiment, user_id = "r", start_time = start,
            tags = list(list(key = "t", value = "v")))$run
id <- run$info$run_uuid
stopifnot(!is.null(id), run$info$run_id == id)
rest("runs/log-parameter", run_id = id, run_uuid = id, key = "lr", value = 0.1)
rest("runs/log-metric", run_id = id, run_uuid = id, key = "loss", value = 0.5, timestamp = start, step = 0)
rest("runs/log-metric", run_id = id, run_uuid = id, key = "loss", value = 0.25, timestamp = "1.72e+12", step = "1e+05")
rest("runs/log-metric", run_id = id, run_uuid = id, key = "nan", value = NaN, timestamp = start, step = 1)
rest("runs/log-metric", run_id = id, run_uuid = id, key = "up", value = Inf, timestamp = start, step = 1)
rest("runs/log-metric", run_id = id, run_uuid = id, key = "down", value = -Inf, timestamp = start, step = 1)
rest("runs/log-batch", run_id = id,
     metrics = list(list(key = "b", value = 1.5, timestamp = start, step = 3),
                    list(key = "b", value = NaN, timestamp = start, step = 4)),
     params = list(list(key = "flag", value = TRUE)), tags = list(list(key = "u", value = "\u00e9")))
rest("runs/set-tag", run_id = id, run_uuid = id, key = "k", value = "v")
rest("runs/delete-tag", run_id = id, key = "k")
rest("runs/log-parameter", run_id = id, run_uuid = id, key = "lr", value = 0.2, expect = 400)
got <- rest("runs/get", verb = "GET", query = list(run_id = id, run_uuid = id))$run
values <- setNames(lapply(got$data$metrics, function(m) m$value), vapply(got$data$metrics, function(m) m$key, ""))
stopifnot(values$nan == "NaN", values$up == "Infinity", values$down == "-Infinity", values$loss == 0.25)
history <- rest("metrics/get-history", verb = "GET",
                query = list(run_id = id, run_uuid = id, metric_key = "loss"))$metrics
stopifnot(length(history) == 2, history[[1]]$step == 0, history[[2]]$step == 100000)
rest("runs/update", run_id = id, run_uuid = id, status = "FINISHED", end_time = start + 5)
found <- rest("runs/search", experiment_ids = list(experiment), filter = "metrics.loss < 1",
              run_view_type = "ACTIVE_ONLY", max_results = 100, order_by = list("metrics.loss DESC"))$runs
stopifnot(length(found) == 1, found[[1]]$info$run_uuid == id, found[[1]]$info$status == "FINISHED")
rest("artifacts/list", verb = "GET", query = list(run_id = id, run_uuid = id))
rest("runs/delete", run_id = id)
rest("runs/restore", run_id = id)

rest("registered-models/create", name = "m", tags = list(list(key = "k", value = "v")), description = "first")
rest("registered-models/update", verb = "PATCH", name = "m", description = "second")
rest("registered-models/search", verb = "GET", query = list(filter = "name = 'm'", max_results = 100))
rest("model-versions/create", name = "m", source = paste0("runs:/", id, "/model"), run_id = id)
rest("model-versions/transition-stage", name = "m", version = 1, stage = "Production", archive_existing_versions = FALSE)
rest("model-versions/update", verb = "PATCH", name = "m", version = 1, description = "best")
rest("registered-models/get-latest-versions", name = "m", stages = list("Production", "Staging"))
rest("model-versions/get", verb = "GET", query = list(name = "m", version = "1"))
rest("model-versions/delete", verb = "DELETE", name = "m", version = 1)
rest("registered-models/rename", name = "m", new_name = "n")
rest("registered-models/delete", verb = "DELETE", name = "n")
rest("experiments/update", experiment_id = experiment, new_name = "s")
rest("experiments/delete", experiment_id = experiment)
rest("experiments/restore", experiment_id = experiment)
cat("R agrees\n")
