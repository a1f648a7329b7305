"""Train a classifier on scikit-learn's bundled digits and log everything with runstream.

    python examples/train_digits.py --tracking-uri http://127.0.0.1:5000 --steps 5000

Logs 22 metrics a step, the hyperparameters, a confusion matrix as a figure and the model file; prints the
run id as its last line. Without --tracking-uri the run goes where RUNSTREAM_TRACKING_URI says, else to
./runstream-data.
"""

from __future__ import annotations

import argparse
import json
import pickle
import tempfile
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import ConfusionMatrixDisplay, accuracy_score, log_loss
from sklearn.model_selection import train_test_split

import runstream as rs

matplotlib.use("Agg")

CLASSES = np.arange(10)


def main() -> None:
    """Parse the command line, train, and print the run id."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--tracking-uri", help="where to log; default RUNSTREAM_TRACKING_URI, else ./runstream-data"
    )
    parser.add_argument("--experiment", default="digits", help="name of the experiment (default: digits)")
    parser.add_argument(
        "--steps", type=int, default=5000, help="mini-batches, 22 points each (default: 5000)"
    )
    parser.add_argument("--batch-size", type=int, default=64, help="samples a mini-batch (default: 64)")
    parser.add_argument(
        "--alpha", type=float, default=1e-4, help="strength of the L2 penalty (default: 1e-4)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of shuffling and of the model (default: 0)")
    parser.add_argument("--expect", type=Path, help="write every point logged to this JSON file")
    options = parser.parse_args()
    if options.tracking_uri:
        rs.set_tracking_uri(options.tracking_uri)
    rs.set_experiment(options.experiment)
    with rs.start_run(tags={"dataset": "digits"}) as run:
        points = train(options)
    if options.expect:
        options.expect.write_text(json.dumps(points))
    print(run.info.run_id)


def train(options: argparse.Namespace) -> dict[str, list[tuple[int, float]]]:
    """Train one model inside the active run; return what was logged, per key as (step, value)."""
    digits = load_digits()
    x_train, x_test, y_train, y_test = train_test_split(
        digits.data / 16.0, digits.target, test_size=0.25, random_state=options.seed
    )
    model = SGDClassifier(loss="log_loss", alpha=options.alpha, random_state=options.seed)
    rs.log_params(
        {
            "model": type(model).__name__,
            "alpha": options.alpha,
            "batch_size": options.batch_size,
            "steps": options.steps,
            "seed": options.seed,
        }
    )
    points: dict[str, list[tuple[int, float]]] = {}
    random = np.random.default_rng(options.seed)
    for step in range(options.steps):
        chosen = random.integers(0, len(x_train), options.batch_size)
        model.partial_fit(x_train[chosen], y_train[chosen], classes=CLASSES)
        for key, value in batch_metrics(model, x_train[chosen], y_train[chosen]).items():
            rs.log_metric(key, value, step=step)
            points.setdefault(key, []).append((step, value))
    report(model, x_test, y_test)
    return points


def batch_metrics(model: Any, x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Return 22 metrics of one mini-batch: x float64[n, 64], y int[n]."""
    probability = model.predict_proba(x)
    predicted = probability.argmax(axis=1)
    metrics = {"train/loss": float(log_loss(y, probability, labels=CLASSES))}
    for digit in CLASSES:
        metrics[f"confidence/{digit}"] = float(probability[:, digit].mean())
        metrics[f"weight_norm/{digit}"] = float(np.linalg.norm(model.coef_[digit]))
    metrics["train/accuracy"] = float((predicted == y).mean())
    return metrics


def report(model: Any, x: np.ndarray, y: np.ndarray) -> None:
    """Log test metrics, the confusion matrix and the model file of a trained model."""
    rs.log_metric("test/accuracy", float(accuracy_score(y, model.predict(x))))
    rs.log_metric("test/loss", float(log_loss(y, model.predict_proba(x), labels=CLASSES)))
    display = ConfusionMatrixDisplay.from_predictions(y, model.predict(x))
    rs.log_figure(display.figure_, "plots/confusion_matrix.png")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.pkl"
        path.write_bytes(pickle.dumps(model))
        rs.log_artifact(str(path), "model")


if __name__ == "__main__":
    main()
