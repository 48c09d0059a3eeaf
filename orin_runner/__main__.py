"""``python -m orin_runner`` is ``orin-run``."""

from orin_runner.cli import exits


def main() -> None:
    """Entry point."""
    exits.run_process(_orin_run)  # Ctrl-C counts before the commands are imported, too


def _orin_run() -> None:
    from orin_runner.cli.main import main as orin_run  # noqa: PLC0415

    orin_run()


if __name__ == "__main__":
    main()
