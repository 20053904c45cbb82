"""Transports: WebSocket (both roles) and HTTP.

Importing ``transports.websocket`` or ``transports.http`` loads picows or aiohttp, about 100 ms each: nothing
imports them before a connection is opened.
"""
