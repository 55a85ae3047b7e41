"""`python -m commonwatt`, for those who start us without a PATH."""

from commonwatt.cli import main

main()
