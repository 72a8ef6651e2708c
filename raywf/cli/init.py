"""`raywf init`: a first workflow.yaml."""

from __future__ import annotations

import json
from pathlib import Path

import click

from raywf.core.errors import SettingsError

TEMPLATE = """\
# One prediction problem, from tables to a served model. 'raywf run' trains, 'raywf serve up' serves.
name: {name}
task: binary                  # binary, multiclass or regression
# metric: roc_auc             # default by task: roc_auc, log_loss, rmse

spine:                        # one row for each thing to predict
  path: data/table.csv        # CSV or Parquet: a file, a folder or a glob, local or s3://...
  label: label                # the column to predict
  keys: [id]                  # what identifies a row; [] if nothing does
  # positive: "yes"           # which label counts as positive in a binary task
  # event_time: asked_at      # when the prediction is asked for
  # label_time: known_at      # when the label became known
  # maturity: 30d             # how old a row must be to be learned from; default: found in the data
  # weight: importance        # how much a row counts in a fit
  # group: customer           # without event_time, rows of one group are never parted

features:
  exclude: []                 # columns of the spine that must not be used
  # views:                    # tables joined as of the event time
  #   weather:
  #     path: data/weather/*.parquet
  #     keys: [station]
  #     event_time: measured_at
  #     known_time: published_at
  #     max_age: 3h

search: {{budget_s: 60}}        # wall-clock seconds for one search
# cost: {{node_type: m7i.2xlarge, region: us-east-1, spot: false}}  # what 'raywf cost' reckons with
serving: {{port: 8000}}

retrain:                      # when the running system retrains
  tolerance: 0.01             # rise of the bounded loss that is forgiven
  cooldown: 7d
  look: 7d                    # how often a quick model of newer rows is scored beside the champion
  regret: 0.02                # what the champion may lose by it, as a share of its loss, over the looks
  # every: 30d                # or cron: "0 3 * * 1", timezone: Europe/Berlin; docs/retraining.md has more

# alerts:                     # whom to tell, and of what; try it by 'raywf alerts test'
#   slack: env:SLACK_WEBHOOK  # or webhook, email, command; a secret stands elsewhere: env:NAME, file:PATH
#   kinds: [rolled_back, failed, helpless, fallen, monitor, labels]

stores:
  root: .raywf                # snapshots, sweeps, log, journal, MLflow's SQLite
"""


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--force", is_flag=True, help="Overwrite a workflow.yaml that is there.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def init(folder: Path, *, force: bool, as_json: bool) -> None:
    """Write a commented workflow.yaml into FOLDER."""
    target = folder / "workflow.yaml"
    if target.exists() and not force:
        raise SettingsError(f"{target} exists; edit it, or give --force to overwrite it")
    folder.mkdir(parents=True, exist_ok=True)
    name = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "-" for c in folder.resolve().name)
    target.write_text(TEMPLATE.format(name=name or "workflow"))
    if as_json:
        click.echo(json.dumps({"path": str(target)}))
    else:
        click.echo(f"wrote {target}\nnext: name your table and label in it, then: raywf run -f {target}")
