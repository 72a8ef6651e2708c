"""A bundle's predictor as an MLflow model, for ``mlflow models serve``."""

import sys
from typing import Any

import mlflow


class Served(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """Answers rows of a data frame as the bundle does."""

    def load_context(self, context: Any) -> None:
        from raywf.models.bundle import load_bundle

        self.predictor = load_bundle(context.artifacts["bundle"])

    def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
        return self.predictor.predict_rows(model_input.to_dict("records"))


def main() -> None:
    bundle, target = sys.argv[1:]
    mlflow.pyfunc.save_model(
        target, python_model=Served(), artifacts={"bundle": bundle}, pip_requirements=["mlflow"]
    )


if __name__ == "__main__":
    main()
