"""The zoo: small networks, trained by one command and shipped with the package, `eq.load("zoo:NAME")`.

    python -m experiments.zoo [NAME ...]

Each is a run of `eqprop train`. Its file holds the trained network, and in the header how it was trained, on what, and
what it reaches. `docs/zoo.md` is written from the headers.
"""

import subprocess
import sys
from pathlib import Path

import eqprop as eq
from eqprop.run import runtime
from eqprop.run.build import build
from eqprop.run.compose import compose
from eqprop.run.loop import model_of
from eqprop.run.provenance import checkout
from eqprop.run.record import checkpoint_of, run_path, settings
from eqprop.run.study.records import read_run
from eqprop.run.tables import markdown
from eqprop.save import ZOO

ENTRIES = {
    "digits": ("Two layers on digits, weak feedback and homeostasis.", ["network.feedback_gain=0.2"]),
    "digits_resistive": ("A circuit of resistors, diodes and amplifiers.", ["experiment=digits_resistive"]),
    "fashion_mnist": (
        "One hidden layer on Fashion-MNIST, from independent feedback weights.",
        ["experiment=fashion_mnist_best", "network.sizes=[784,128,32]"],
    ),
    "fashion_mnist_deep": (
        "Four hidden layers on Fashion-MNIST, from independent feedback weights.",
        ["experiment=fashion_mnist_depth", "network.sizes=[784,96,64,64,64,32]", "network.feedback_gain=0.3"],
    ),
    "fashion_mnist_conv": (
        "Two convolutional layers with softmax pooling on Fashion-MNIST, from independent feedback kernels.",
        [
            *("data=fashion_mnist", "network=conv_narrow", "network.channels=[8,16]", "stencil=centred"),
            *("homeostasis=skew", "homeostasis.share=0.2", "epochs=2", "batch_size=100"),
            "data.train_examples=20000",
        ],
    ),
}
"""What each is, and the overrides of its run. No setting was searched for."""

RESULTS = ("test_accuracy", "test_loss", "validation_accuracy", "test_unsettled_fraction", "parameters", "seconds")

HEAD = """# Zoo

Small trained networks are part of the package.

```python
import eqprop as eq

model = eq.load("zoo:fashion_mnist_deep")
card = eq.read_header("zoo:fashion_mnist_deep")  # how it was trained, on what, and what it reaches
print(card["about"], card["results"])
```

Inputs are images as `eqprop.data` loads them, through the preprocessing of the table. Fixed points are found by the
relaxation that the card names; `eq.Sweep()` finds them too, and `eq.Newton()` those of the circuit. `make zoo` trains
all of them again. Each is one seed, measured once on the test images. They are examples to look into and to start from.
[Results](results/README.md) have seeds and spread.

{table}
"""


def keep(name: str, root: Path) -> None:
    """The network of a finished run, with its card."""
    about, words = ENTRIES[name]
    cfg = compose([*words, f"run.root={root}"], "train")
    folder = run_path(cfg)
    runtime.configure(cfg)
    model, _ = model_of(cfg, build(cfg), checkpoint_of(folder))
    (record,) = read_run(folder, name)
    header = {
        "about": about,
        "command": " ".join(["eqprop", "train", *words]),
        "results": {key: record.summary[key] for key in RESULTS if key in record.summary},
        "config": settings(cfg),
        "environment": record.environment,
    }
    ZOO.mkdir(exist_ok=True)
    eq.save(ZOO / f"{name}.npz", model, header)


def page() -> str:
    """`docs/zoo.md`, from the headers."""
    rows = []
    for path in sorted(ZOO.glob("*.npz")):
        card = eq.read_header(path)
        data = card["config"]["data"]
        given = {key: value for key, value in data["preprocess"].items() if key in ("maximum", "mean", "std")}
        if "Conv" in card["config"]["network"]["_target_"]:
            given["image_shape"] = tuple(data["image_shape"])
        preprocess = ", ".join(f"{key}={value}" for key, value in given.items())
        rows.append(
            [
                f"`zoo:{path.stem}`",
                card["about"],
                f"{100 * card['results']['test_accuracy']:.1f} %",
                f"`Preprocess({preprocess})`",
                f"`{card['command']}`",
                f"`{str(card['environment']['commit'])[:10]}`",
                f"{path.stat().st_size / 1e3:.0f} kB",
            ]
        )
    return HEAD.format(
        table=markdown(["", "what", "test accuracy", "preprocessing", "command", "commit", "size"], rows)
    )


def main() -> None:
    names, runs = sys.argv[1:] or [*ENTRIES], Path("outputs/zoo")
    for name in names:  # all of them before the first file is written: records name a commit without changes
        subprocess.run([sys.executable, "-m", "eqprop", "train", *ENTRIES[name][1], f"run.root={runs}"], check=True)
    for name in names:
        keep(name, runs)
    root = checkout()
    assert root is not None, "the zoo is made in a checkout"
    (root / "docs" / "zoo.md").write_text(page(), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
