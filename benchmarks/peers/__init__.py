"""Servers by others, with the same stream: Strawberry, Ariadne, and graphql-ws on Node."""
