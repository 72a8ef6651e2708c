"""raywf keeps a model good: snapshot, search, gate, registry, serving, monitor and retraining in one loop."""

__version__ = "0.1.0"
