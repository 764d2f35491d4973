"""``python -m gpupipe.cli``."""

from gpupipe.cli import main

main()
