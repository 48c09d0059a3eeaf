"""``python -m convert``."""

from orin_runner.cli import exits


def main() -> None:
    """Entry point."""
    exits.run_process(_convert)  # Ctrl-C counts before the converter is imported, too


def _convert() -> None:
    from orin_runner.cli.convert import main as convert  # noqa: PLC0415

    convert()


if __name__ == "__main__":
    main()
