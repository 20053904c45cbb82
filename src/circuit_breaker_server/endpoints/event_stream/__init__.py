"""GraphQL over Server-Sent Events (graphql-sse, PROTOCOL.md): both of its modes, on the gateway's feeds.

*Distinct connections*: a subscription is a request, ``POST`` or ``GET`` with ``Accept: text/event-stream``,
whose answer is its events. *Single connection*: ``PUT`` reserves a stream and is answered with its token,
``GET`` opens it, ``POST`` begins an operation on it, ``DELETE`` ends one.

Each event's ``id`` is its cursor, and ``Last-Event-ID`` resumes behind it: an ``EventSource`` of a browser
does so by itself. An ``id`` that stands alone is the live signal: nothing is missed from there on.
"""
