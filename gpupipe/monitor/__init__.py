"""Monitoring: what comes in and what goes out, held against the states that fitted the pipeline.

    monitor("runs/latest", "log/", history="history/")     # -> Verdict

`sources` are cut into `windows`; one `scan` counts the cells of every column (`cells`, `counts`);
`judge` asks every measure of `measures` about every window against the `reference`, which is the
bundle itself; `history` keeps the counts, and `verdict` says whether an alert fires.
"""

from gpupipe.monitor.dashboard import write_dashboard
from gpupipe.monitor.prometheus import write_files, write_prometheus
from gpupipe.monitor.run import monitor
from gpupipe.monitor.verdict import Verdict

__all__ = ["Verdict", "monitor", "write_dashboard", "write_files", "write_prometheus"]
