"""`python -m tfopt` is the command line."""

from tfopt.cli import main

if __name__ == "__main__":
    main()
