"""Histories: what clients saw, and what in it no correct broker could have caused.

`events` is what they write down, `story` what follows from it, `anomalies` what is wrong.
"""
