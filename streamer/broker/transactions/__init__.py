"""Transactions: one id (pure), its markers, the coordinator of all, and the requests."""
