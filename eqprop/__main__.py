"""`python -m eqprop` is the program `eqprop`."""

from eqprop.run.cli import main

if __name__ == "__main__":
    main()
