"""Bundles with their lineage as MLflow model versions; runs of searches and trials."""
