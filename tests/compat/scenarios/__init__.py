"""Calls that are made to MLflow and to us."""
