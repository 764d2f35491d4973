"""Feature selection: methods that choose, within each training part, what the model gets."""

from gpupipe.select import boruta, filters, importance
from gpupipe.select.base import METHODS, Method, Verdict, register
from gpupipe.select.pruned import pruned
from gpupipe.select.selector import SELECT, Methods, selecting, selector_of
from gpupipe.select.stability import stability, summary

__all__ = ["METHODS", "SELECT", "Method", "Methods", "Verdict", "boruta", "filters",
           "importance", "pruned", "register", "selecting", "selector_of", "stability", "summary"]
