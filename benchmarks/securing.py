"""What security costs: fan-out and latency with everything on, in turns with a server that asks nobody."""

from __future__ import annotations

import contextlib
import json
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial

import uvloop
from joserfc import jws
from joserfc.jwk import OctKey

from benchmarks.event import DOCUMENT
from benchmarks.latency import measure, percentile
from benchmarks.machine import LOAD_CORE, on_core
from benchmarks.our_server import SECRET
from benchmarks.processes import Remote
from benchmarks.row import Rounds, Row, Scale, at_least, at_most
from benchmarks.sending import deliver, our_server_process
from benchmarks.sockets import Sockets
from circuit_breaker_server import RateSettings

__all__ = ["securing"]

_SOCKETS = 100
_ON = "tokens, policy, sealed cursors, audit log, limits, rates"


def _token() -> str:
    said = {"sub": "bench", "exp": time.time() + 3600}
    key = OctKey.import_key(SECRET)
    return jws.serialize_compact({"alg": "HS256"}, json.dumps(said).encode(), key, algorithms=["HS256"])


def securing(scale: Scale) -> Iterator[Row]:
    """Yield a row for fan-out and one for latency."""
    yield from _fan_out(scale)
    yield from _latency(scale)


def _fan_out(scale: Scale) -> Iterator[Row]:
    with on_core(LOAD_CORE), contextlib.ExitStack() as running_:
        placed: dict[str, tuple[Remote, Sockets]] = {}
        for name, token in (("open", None), ("secured", _token())):
            server = running_.enter_context(
                our_server_process(secured=token is not None, rates=RateSettings())
            )
            server.call("make", workflows=1)
            port = server.call("port")
            sockets = running_.enter_context(Sockets(port, _SOCKETS, resume=True, token=token))
            sockets.subscribe(DOCUMENT)
            placed[name] = server, sockets
        for together in (1, 10, 100):
            events = max(scale.pick(2_000, 200) if together > 1 else scale.pick(400, 60), 2 * together)

            measures: dict[str, Callable[[], float]] = {
                name: partial(deliver, *each, events, together=together) for name, each in placed.items()
            }
            rounds = Rounds(measures, scale.runs)
            share = round(rounds.ratio("secured", "open"), 3)
            row = Row(
                benchmark=f"security, fan-out to {_SOCKETS} sockets, {together} events per write",
                unit="deliveries/s",
                ours=round(rounds.median("secured")),
                detail={"of an open server's": share, "open": round(rounds.median("open"))},
                settings={"on": _ON, "max_connections_per_principal": 10_000},
            )
            yield row.aim({"of an open server's": at_least(0.9, share)})


def _latency(scale: Scale) -> Iterator[Row]:
    subscriptions, per_second = scale.pick(1_000, 100), scale.pick(1_000, 200)
    found: dict[str, list[tuple[float, float]]] = {"open": [], "secured": []}
    with on_core(LOAD_CORE):
        # More than elsewhere: what is asked for is a ratio of tails that are nearly equal.
        for _ in range(scale.pick(7, 1)):
            for name, token in (("open", None), ("secured", _token())):
                with our_server_process(secured=token is not None, rates=RateSettings()) as server:
                    workflows = server.call("make", workflows=subscriptions // 2)
                    url = f"http://127.0.0.1:{server.call('port')}/graphql"
                    taken = uvloop.run(
                        measure(
                            url,
                            workflows,
                            per_second=per_second,
                            seconds=float(scale.pick(8, 2)),
                            token=token,
                        )
                    )
                found[name].append((percentile(taken, 0.5) * 1000, percentile(taken, 0.99) * 1000))
    pairs = list(zip(found["secured"], found["open"], strict=True))
    p50, p99 = (round(statistics.median(one[k] / other[k] for one, other in pairs), 2) for k in (0, 1))
    row = Row(
        benchmark=f"security, latency, {subscriptions:,} subscriptions, {per_second:,} events/s",
        unit="ms, p50",
        ours=round(statistics.median(one[0] for one in found["secured"]), 2),
        detail={
            "times an open server's": p50,
            "p99, times": p99,
            "p99 ms": round(statistics.median(one[1] for one in found["secured"]), 2),
        },
        settings={"on": _ON},
    )
    yield row.aim({"p50, times": at_most(1.1, p50), "p99, times": at_most(1.1, p99)})
