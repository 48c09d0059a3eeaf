"""``python -m orin_runner`` is ``orin-run``."""

from orin_runner.cli.main import main

if __name__ == "__main__":
    main()
