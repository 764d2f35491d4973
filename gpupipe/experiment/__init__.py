"""Experiments: planned beforehand, assigned by hash, analysed on sums that merge.

`assign` gives a unit its arm, `plan` says what would be believed and how many units that takes,
`analyse` says what happened: see docs/experiments.md.
"""
