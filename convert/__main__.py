"""``python -m convert``."""

from orin_runner.cli.convert import main

if __name__ == "__main__":
    main()
