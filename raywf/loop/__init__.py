"""Composes the steps: the retraining job's body, the controller and the decision journal."""
