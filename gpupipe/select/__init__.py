"""Feature selection: methods that choose, within each training part, what the model gets."""

from gpupipe.select import boruta, filters, importance
from gpupipe.select.base import METHODS, Method, Verdict, register
from gpupipe.select.selector import Methods, selecting, selector_of
from gpupipe.select.stability import stability, summary

__all__ = ["METHODS", "Method", "Methods", "Verdict", "boruta", "filters", "importance",
           "register", "selecting", "selector_of", "stability", "summary"]
