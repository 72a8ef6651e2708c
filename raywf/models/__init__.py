"""Fitted estimators to servable bundles and back; one file a model family, no pickle anywhere."""
