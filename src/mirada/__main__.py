"""`python -m mirada`: the same as the command `mirada`."""

from mirada.cli.main import main

if __name__ == "__main__":
    main()
