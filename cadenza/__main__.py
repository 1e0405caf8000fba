"""`python -m cadenza` is the command `cadenza`."""

from cadenza.cli.main import entry

if __name__ == "__main__":
    entry()
