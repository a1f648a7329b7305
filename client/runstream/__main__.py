"""`python -m runstream` is the `runstream` command."""

from runstream._cli import main

if __name__ == "__main__":
    main()
