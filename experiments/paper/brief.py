"""The published Fashion-MNIST network after a short training, for studies that look into its states."""

from eqprop.run.study.trained import Trained, train

EXAMPLES = {"quick": 500, "cpu": 5_000, "full": 54_000}
"""Training images of its one epoch. It is no longer the gentle network of the initialisation."""


def brief(scale: str, seed: int = 0) -> Trained:
    """The network of that seed, with a tenth of the images held out to look at."""
    words = ("experiment=fashion_mnist_settled", "epochs=1", "data.validation=0.1", f"seed={seed}")
    return train(f"seed {seed}", (*words, f"data.train_examples={EXAMPLES[scale]}"))
