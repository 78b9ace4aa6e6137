"""``python -m spectraledge``: the command line."""

from .cli import main

main()
