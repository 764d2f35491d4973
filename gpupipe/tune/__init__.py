"""Choosing: families and parameters that do best out of fold, and what they give together."""
