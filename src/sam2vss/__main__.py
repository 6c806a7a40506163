"""`python -m sam2vss`."""

from .cli import main

main()
