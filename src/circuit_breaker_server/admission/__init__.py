"""Admission: which hosts, origins and addresses may connect, and how many connections each may open."""
