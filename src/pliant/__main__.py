"""`python -m pliant`: the command line, also for torchrun."""

from pliant.cli import main

if __name__ == "__main__":
    main()
