"""Bring the secrets of a data directory into the bucket of its cluster, once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from circuit_breaker_server.logs import get_logger
from circuit_breaker_server.shared.bucket import Bucket
from circuit_breaker_server.shared.secrets import BucketSecrets
from circuit_breaker_server.storage.secret_store import SecretStore, SecretStoreError

__all__ = ["MOVED_SECRETS_FILE", "move_secrets"]

MOVED_SECRETS_FILE: Final = "secrets.db.moved"

logger = get_logger("bucket")


async def move_secrets(data_dir: Path, bucket: Bucket, keys: Sequence[bytes]) -> BucketSecrets:
    """Return the secrets of the bucket, with those of the directory's own store that it did not have.

    The directory's file is then renamed to :data:`MOVED_SECRETS_FILE`, and not looked at again.

    :param keys: of Fernet, with which the directory's store may be encrypted, besides keys of its own.
    :raises SecretStoreError: the store cannot be read, or the bucket cannot be written.
    """
    secrets = BucketSecrets(bucket)
    path = data_dir / "secrets.db"
    if not path.exists():
        return secrets
    store = await SecretStore.open(data_dir, cluster_keys=keys)
    for id_ in store.ids():
        value = store.get(id_)
        if value is not None and await secrets.find(id_) is None:
            await secrets.put(id_, value)
    try:
        path.rename(path.with_name(MOVED_SECRETS_FILE))
    except OSError as error:
        raise SecretStoreError(f"{path}: cannot be renamed ({error.strerror})") from error
    logger.info("secrets_moved", bucket=bucket.where, secrets=len(store.ids()))
    return secrets
