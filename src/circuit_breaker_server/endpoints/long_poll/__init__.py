"""``POST /graphql/poll``: subscriptions for networks that let no WebSocket through.

A poll asks what comes after a cursor, and is answered as soon as there is something: it subscribes to the
gateway as a session does, takes what comes, and leaves. Nothing is kept between two polls; the log serves
what happened in between.

Asked, for one operation (its part is the payload of ``subscribe``)::

    {"query": "…", "variables": {…}, "operationName": "…",
     "extensions": {"resume": {"after": "<cursor>"}}, "waitMs": 20000}

or for several, ``{"operations": [{"query": "…", …}, …], "waitMs": 20000}``. Answered::

    {"events": [{"data": {…}, "extensions": {"resume": {"cursor": "…", "prev": "…"}}}, …],
     "cursor": "<after of the next poll>", "done": false}

or ``{"results": […]}`` in the order of the operations. ``errors`` is there, and ``done`` true, where an
operation has ended with errors; ``cursor`` may then be null.
"""
