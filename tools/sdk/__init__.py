"""What writes the SDK from the schema; `tools/generate_sdk.py` puts it together."""
