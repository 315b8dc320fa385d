"""`python -m letta_cli`."""

from letta_cli.app import main

main()
