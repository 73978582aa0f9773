"""All figures, in order.

    python -m experiments.paper.figures --scale cpu        # or: make figures SCALE=cpu

Runs are reused where they are finished. A figure without its data set says so and is left out.
"""

from time import monotonic

from experiments.paper import angles, bias_split, conv_curves, homeostasis_curves, loop, nudge_error, settling
from experiments.paper.drawing import Arguments, make, parse

MODULES = (nudge_error, angles, homeostasis_curves, loop, conv_curves, bias_split, settling)


def main(arguments: Arguments) -> None:
    """Make what can be made. A label of data is about the images of CIFAR-10: the others are always the originals."""
    for module in MODULES:
        began = monotonic()
        label = arguments.data_label if module is conv_curves else None
        made = make(module.ENTRY, arguments._replace(data_label=label))
        print(f"{module.ENTRY.name}: {'made' if made else 'not made'} in {monotonic() - began:.0f} s")


if __name__ == "__main__":
    main(parse())
