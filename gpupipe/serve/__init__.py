"""A service of a bundle: the server, its limits, its traffic and its prediction log.

`settings` says what may be configured, `app` answers requests, `process` starts and stops it.
"""

from gpupipe.serve.settings import ServeConfig, load_settings

__all__ = ["ServeConfig", "load_settings", "serve"]


def serve(settings: ServeConfig) -> int:
    """Serve until SIGTERM or SIGINT; the exit code. Raises what `gpupipe.load` raises for a bad
    model, ConfigError for what does not fit together, EnvironmentFault for an absent library."""
    from gpupipe.serve.process import serve as run

    return run(settings)
