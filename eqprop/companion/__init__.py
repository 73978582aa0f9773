"""Rules and wrappers that stand beside learning by relaxation. None of them is on by default."""

from eqprop.companion.class_aligning import align_classes as align_classes
from eqprop.companion.symmetrised import Averaged as Averaged, Symmetrised as Symmetrised
from eqprop.companion.tangential import tangential as tangential
