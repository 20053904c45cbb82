"""What writes the SDK from the schema; `scripts/generate_sdk.py` puts it together."""
