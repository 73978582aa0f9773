# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # From records to a figure
#
# This page runs the program `eqprop` in an empty folder: a sweep of two settings with three seeds each, then a study of
# its own, written in a few lines of YAML. It reads what both leave behind as pandas frames, and draws mean and spread
# over seeds. Nothing is kept in the memory of this notebook between training and reading: a run is a folder, and a
# study is one file of records.

# %%
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt

import eqprop as eq
from eqprop.run import collect, frame
from eqprop.run.study import records

place = tempfile.TemporaryDirectory()
folder = Path(place.name)


def eqprop(*words: str) -> str:
    """Run the program as from a shell, in the folder of this page."""
    # Runs of one shape share their compiled programs by a cache on the disk.
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(folder / "programs")}
    command = [sys.executable, "-m", "eqprop", *words]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# %% [markdown]
# ## A sweep
#
# The settings below make the runs short: a small network, few images, a fixed number of steps. In a shell the same
# words follow `eqprop train`. `population=3` trains three seeds as one compiled program, and `-m` makes a run of each
# choice.

# %%
short = [
    "epochs=12",
    "data.train_examples=600",
    "network.sizes=[64,48,24]",
    "optimiser.learning_rate=1e-2",
    "stencil=centred",
    "relaxation=fixed_steps",
    "relaxation@nudged=fixed_nudge",
    "steps.free=12",
    "steps.nudged=12",
    "evaluation.alignment_examples=50",
    "max_unsettled=1",
]
eqprop("train", "-m", "homeostasis=exact,none", "population=3", *short)
runs = sorted(path.parent for path in (folder / "outputs").rglob("summary.json"))
print("\n".join(str(path.relative_to(folder)) for path in runs))
print("files of a run:", ", ".join(sorted(path.name for path in runs[0].iterdir())))
assert len(runs) == 2

# %% [markdown]
# `collect.load` makes a dictionary of each member of each run, with its configuration and its results, and
# `collect.differing` names the keys that tell runs apart. `frame.grouped` averages over seeds.

# %%
rows = collect.load(folder / "outputs")
table = frame.of_rows(rows)
assert set(table["status"]) == {"finished"} and len(table) == 6
keys = collect.differing(rows)
means = frame.grouped(table, keys)
columns = ["runs", "validation_accuracy", "validation_accuracy_std", "cosine_hidden", "cosine_hidden_std"]
print(means[[*keys, *columns]].round(3).to_string(index=False))

# %% [markdown]
# The same table comes from the shell by `eqprop collect outputs`, as Markdown, CSV, Parquet or LaTeX.
#
# ## A study
#
# A study asks one question of several runs, and keeps what they answered. Its file lies in `configs/study` of the
# package, or of the folder where one works. The one below has the settings of the sweep, so that its runs are found and
# not trained again: a run is known by its configuration.

# %%
study = f"""
title: Homeostasis on a few digits
question: What does homeostasis do to error vectors within a few epochs?
base: [{", ".join(f'"{word}"' for word in short)}]
scales:
  cpu: {{seeds: [0, 1, 2], set: [population=3]}}
rows:
  with: {{title: with homeostasis, set: [homeostasis=exact]}}
  without: {{title: without, set: [homeostasis=none]}}
measures: [test_accuracy, cosine_hidden, functional_asymmetry]
parts:
  - compare: [[with, without]]
figures:
  curves: {{kind: curves, panels: [cosine_hidden, accuracy], caption: Cosine and accuracy by epoch.}}
"""
(folder / "configs" / "study").mkdir(parents=True)
(folder / "configs" / "study" / "few_digits.yaml").write_text(study)
before = {run: (run / "summary.json").stat().st_mtime for run in runs}
eqprop("study", "few_digits", "results=results")
pages = folder / "results" / "few_digits" / "cpu"
print("files of the study:", ", ".join(sorted(path.name for path in pages.iterdir())))
assert before == {run: (run / "summary.json").stat().st_mtime for run in (folder / "outputs").glob("*-*")}

text = (pages / "README.md").read_text()
print("\n".join(line for line in text.splitlines() if line.startswith("|")))

# %% [markdown]
# ## Records
#
# `records.load` reads the records of any study, such as those that are committed beside the pages of
# [all results](../results/README.md). A record has the resolved configuration, the environment, the metrics of every
# epoch and the summary of one seed. `frame.of_records` makes a row of each, and `frame.epochs_of` a row of each epoch.

# %%
kept = records.load(pages)
print([(record.label, record.seed) for record in kept])
print("environment:", ", ".join(sorted(kept[0].environment)))
epochs = frame.epochs_of(kept)
final = frame.of_records(kept)
assert len(kept) == 6 and sorted(epochs["epoch"].unique()) == list(range(13))

# %%
titles = {"cosine_hidden": "cosine of hidden error vectors to RBP", "validation_accuracy": "validation accuracy"}
_, axes = plt.subplots(1, 2, figsize=(9.0, 3.6), layout="constrained")
for panel, (name, title) in zip(axes, titles.items(), strict=True):
    for label, colour in zip(("with", "without"), eq.plot.COLOURS, strict=False):
        seeds = epochs[epochs["label"] == label].pivot(index="epoch", columns="seed", values=name).astype(float)
        mean, spread = seeds.mean(axis=1), seeds.std(axis=1)
        panel.plot(seeds.index, seeds, color=colour, linewidth=0.6, alpha=0.6)
        panel.plot(mean.index, mean, color=colour, linewidth=2, label=f"{label} homeostasis")
        panel.fill_between(mean.index, mean - spread, mean + spread, color=colour, alpha=0.15, linewidth=0)
    panel.set(xlabel="epoch", ylabel=title)
axes[0].legend(frameon=False)
plt.show()

cosine = final.astype({"cosine_hidden": float}).groupby("label")["cosine_hidden"].agg(["mean", "std"])
print(cosine.round(3).to_string())
assert cosine.loc["with", "mean"] > cosine.loc["without", "mean"] + 2 * cosine["std"].max()

# %% [markdown]
# *Cosine of the error vectors and accuracy by epoch, read from the records of the study: thin lines are seeds, thick
# lines their means, and bands one standard deviation of a sample.*

# %%
place.cleanup()

# %% [markdown]
# ## Try
#
# - Run the cell of the study twice, with `rerun=true` the second time, and look at the times of the runs.
# - Read the records of a study that is committed, by `records.load("docs/results/digits/cpu")` in a checkout.
# - Add the row `asymmetric: {title: AsymEP, set: [homeostasis=none, estimator=asymmetric]}`. Only its run is trained.
#
# More: [many runs](../sweeps.md), [studies and records](../studies.md), [all results](../results/README.md).
