"""Studies: jobs from a configuration, their records, and the pages and figures that are made from records alone.

In a notebook, `eqprop.run.study.records.load(folder)` reads the records of a study, and `eqprop.run.frame` makes pandas
frames of them.
"""

from collections.abc import Sequence


def main(arguments: Sequence[str]) -> None:
    """The command line of `eqprop study`."""
    # Imported here: a notebook that reads records needs no scheduler and no matplotlib.
    from eqprop.run.study.program import main as program

    program(arguments)
