"""`python -m hostler`: the same as `hostler`."""

from hostler.app.cli import main

main()
