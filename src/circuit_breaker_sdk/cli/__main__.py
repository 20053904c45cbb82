"""Run the command line as ``python -m circuit_breaker_sdk.cli``."""

from circuit_breaker_sdk.cli import main

if __name__ == "__main__":
    main()
