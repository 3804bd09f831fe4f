"""`python -m affectdata` is `affectdata`."""

from affectdata.cli._main import main

main()
