"""Fits FLAML with its defaults within the job's budget."""

from __future__ import annotations

import time

from flaml import AutoML
from runner import Fitted, Job, as_scores, carry_out, read_frames, single_rows


def fit(job: Job) -> Fitted:
    train, test = read_frames(job)
    features, labels = train.drop(columns=job.label), train[job.label]
    automl = AutoML()
    start = time.perf_counter()
    automl.fit(
        features,
        labels,
        task=job.task,
        metric=job.metric,
        time_budget=job.budget_s,
        n_jobs=job.cores,
        seed=job.seed,
        verbose=0,
    )
    fit_s = time.perf_counter() - start
    if automl.model is None:
        raise RuntimeError("FLAML ended without a model")
    regression = job.task == "regression"
    predict = automl.predict if regression else automl.predict_proba
    asked = test.drop(columns=job.label)
    return Fitted(
        fit_s=fit_s,
        labels=test[job.label].tolist(),
        classes=() if regression else list(automl.classes_),
        rows=single_rows(asked),
        predict_row=predict,
        predict_table=lambda: as_scores(predict(asked)),
    )


if __name__ == "__main__":
    carry_out(fit)
