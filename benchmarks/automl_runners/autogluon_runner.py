"""Fits AutoGluon with the job's preset within the job's budget; its models are in memory when it is asked."""

from __future__ import annotations

import time

from autogluon.tabular import TabularPredictor
from runner import Fitted, Job, as_scores, carry_out, read_frames, single_rows


def fit(job: Job) -> Fitted:
    train, test = read_frames(job)
    predictor = TabularPredictor(
        label=job.label,
        problem_type=job.task,
        eval_metric=job.metric,
        path=str(job.folder / "autogluon"),
        verbosity=1,
    )
    start = time.perf_counter()
    predictor.fit(train, time_limit=job.budget_s, presets=job.preset, num_cpus=job.cores)
    fit_s = time.perf_counter() - start
    predictor.persist()
    regression = job.task == "regression"
    predict = predictor.predict if regression else predictor.predict_proba
    asked = test.drop(columns=job.label)
    return Fitted(
        fit_s=fit_s,
        labels=test[job.label].tolist(),
        classes=() if regression else list(predictor.class_labels),
        rows=single_rows(asked),
        predict_row=predict,
        predict_table=lambda: as_scores(predict(asked)),
    )


if __name__ == "__main__":
    carry_out(fit)
