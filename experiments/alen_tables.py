r"""The tables of the ALEN paper: every method on a data set, over seeds, ours beside the paper's.

    python -m experiments.alen_tables --workdir=DIR --config.table=1

trains every row (`experiments.alen`, with the settings in `experiments.alen_settings`, which were
chosen on validation parts) on the training and validation parts of its data set, from several
seeds, and prints the mean and standard deviation of its scores on the test part.

Table 1 on Bibtex takes 15 minutes on two CPU cores, and gives ALEN 47.91 +- 0.40 (README has all
rows). Of Table 3, mean and global IOU: FCN 84.43 +- 0.18 and 84.61 +- 0.18, one ALEN 85.2 and 85.3,
its inference network 83.7 and 83.9; on one core an FCN takes 5 minutes, an ALEN 24, and at most 9
more to predict. DVN's row and Table 2 were not measured yet.

Table 1 (labels; `--config.dataset=bookmarks` where that set is at hand), 2 (LFW parts; the paper
has superpixel accuracy, ours is that of pixels, for the superpixels are not in the packed copy) and
3 (Weizmann horses).

Files: `table.csv` and `table.md`, and a folder of each run.
"""

import csv
import dataclasses
import os
from typing import NamedTuple

import numpy as np
from absl import logging

from experiments import alen, common, gasn
from gasn_jax.training import loop
from gasn_jax.training.errors import require


class Row(NamedTuple):
    """A row of a table.

    Attributes:
      name: as the paper has it.
      method: of `experiments.alen`.
      paper: its numbers, of each data set or score; NaN where it has none.
      end: whether the network's proposals count, or the refined outputs.
    """

    name: str
    method: str
    paper: tuple[float, ...]
    end: str = "refined"


class Table(NamedTuple):
    """A table.

    Attributes:
      datasets: of which one is chosen; the first by itself.
      scores: that are compared, by their names in `evaluation.json`.
      paper_score: what the paper's numbers are, if something else.
      rows: from top to bottom.
    """

    datasets: tuple[str, ...]
    scores: tuple[str, ...]
    paper_score: str
    rows: tuple[Row, ...]


_NONE = float("nan")
TABLES = {
    1: Table(
        ("bibtex", "bookmarks"),
        ("example F1",),
        "",
        (
            Row("logistic regression", "logistic", (37.2, 30.7)),
            Row("two layers, threshold 0.5", "feed_forward_half", (38.9, 33.8)),
            Row("two layers, chosen threshold", "feed_forward", (_NONE, _NONE)),
            Row("SPEN", "spen", (42.2, 34.4)),
            Row("SPEN, end to end", "spen_end_to_end", (_NONE, _NONE)),
            Row("SPEN (InfNet)", "inference_network", (42.2, 37.6)),
            Row("DVN", "dvn", (44.7, 37.1)),
            Row("InfNet baseline", "network_alone", (38.9, 32.8), "network"),
            Row("AEN", "aen", (44.2, 34.6)),
            Row("ALEN no L_task", "alen_no_task", (45.3, 37.1)),
            Row("InfNet (ALEN)", "alen", (42.8, 37.2), "network"),
            Row("ALEN", "alen", (46.4, 38.3)),
        ),
    ),
    2: Table(
        ("lfw_parts",),
        ("pixel accuracy",),
        "superpixel accuracy",
        (
            Row("DVN", "dvn", (92.44,)),
            Row("FCN baseline", "feed_forward", (95.36,)),
            Row("InfNet (ALEN)", "alen", (95.87,), "network"),
            Row("ALEN", "alen", (96.47,)),
        ),
    ),
    3: Table(
        ("horses",),
        ("mean IOU", "global IOU"),
        "",
        (
            Row("FCN baseline", "feed_forward", (78.56, 78.7)),
            Row("DVN baseline", "dvn", (84.7, 84.3)),
            Row("InfNet (ALEN)", "alen", (81.3, 81.3), "network"),
            Row("ALEN", "alen", (85.5, 85.4)),
        ),
    ),
}


@dataclasses.dataclass(frozen=True)
class Config(loop.LoopConfig):
    # Training steps of every model; 0 for what its settings say.
    num_steps: int = 0
    # Which table: 1, 2 or 3.
    table: int = 1
    # One of the table's data sets; empty for the first.
    dataset: str = ""
    # Masks: networks of the paper's width, which ask for a GPU.
    wide: bool = False
    # Models of each row, of the seeds `seed`, `seed + 1`, ...
    num_seeds: int = 5
    # Folder that holds the sets; empty for the environment variable GASN_DATA, then ../shared/data.
    data_dir: str = ""
    # The part that is predicted: test, or validation.
    held_out: str = "test"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.table in TABLES, "table", "1, 2 or 3", self.table)
        known = ("", *TABLES[self.table].datasets)
        require(self.dataset in known, "dataset", f"one of {', '.join(known[1:])}", self.dataset)
        require(self.num_seeds >= 1, "num_seeds", ">= 1", self.num_seeds)
        require(self.table > 1 or not self.wide, "wide", "false for labels", True)
        for row in TABLES[self.table].rows:
            self.runs(row)

    def runs(self, row: Row) -> list[alen.Config]:
        """The config of each of a row's models."""
        names = ("log_every", "checkpoint_every", "data_dir", "held_out", "wide")
        shared = {name: getattr(self, name) for name in names}
        if self.num_steps:
            shared["num_steps"] = self.num_steps
        dataset = self.dataset or TABLES[self.table].datasets[0]
        seeds = range(self.seed, self.seed + self.num_seeds)
        return [alen.settled(dataset, row.method, **shared, seed=seed) for seed in seeds]


def train(config: Config, directory: str) -> dict[str, dict[str, list[float]]]:
    """Trains (or restores) every model; writes and returns each row's scores, one a seed."""
    table = TABLES[config.table]
    found: dict[str, dict[str, list[float]]] = {}
    for row in table.rows:
        evaluations = [
            alen.train(run, os.path.join(directory, f"{row.method}-{run.seed}"))
            for run in config.runs(row)
        ]
        found[row.name] = {
            name: [evaluation[row.end][name] for evaluation in evaluations] for name in table.scores
        }
    _save(config, directory, found)
    return found


def _save(config, directory, found):
    """The table as CSV and as Markdown, which is also logged."""
    table = TABLES[config.table]
    dataset = config.dataset or table.datasets[0]
    header = ["row"]
    for score in table.scores:
        paper = "the paper's" + (f" {table.paper_score}" if table.paper_score else "")
        header += [f"{score} %", f"sd over {config.num_seeds} seeds", paper]
    lines = []
    for row in table.rows:
        cells = [row.name]
        for i, score in enumerate(table.scores):
            column = table.datasets.index(dataset) if len(table.datasets) > 1 else i
            values = found[row.name][score]
            paper = row.paper[column]
            cells += [f"{np.mean(values):.2f}", f"{gasn.spread(values):.2f}"]
            cells.append("" if np.isnan(paper) else f"{paper:g}")
        lines.append(cells)
    with open(os.path.join(directory, "table.csv"), "w", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *lines])
    rows = [header, ["---"] * len(header), *lines]
    text = "\n".join(f"| {' | '.join(cells)} |" for cells in rows)
    with open(os.path.join(directory, "table.md"), "w", encoding="utf-8") as file:
        file.write(f"{text}\n")
    logging.info("%s, %s part:\n%s", dataset, config.held_out, text)


if __name__ == "__main__":
    common.run(train, Config())
