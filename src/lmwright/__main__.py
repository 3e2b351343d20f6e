"""`python -m lmwright` is `lmwright`."""

from lmwright.cli.main import main

main()
