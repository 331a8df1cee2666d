"""Ray: joined where RAY_ADDRESS says, or started on this machine; quiet unless asked."""

import logging
import os

import ray
from ray.data import DataContext

log = logging.getLogger("enpar")


def connect() -> None:
    """Join or start Ray for this process; a second call changes nothing."""
    if ray.is_initialized():
        return
    verbose = log.isEnabledFor(logging.DEBUG)
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else a FutureWarning at each start
    level = logging.INFO if verbose else logging.ERROR
    address = os.environ.get("RAY_ADDRESS")
    local = {} if address else {"include_dashboard": False}
    ray.init(address=address, logging_level=level, log_to_driver=verbose, **local)
    for name in ("ray", "ray.data", "ray.train", "ray.tune"):
        logging.getLogger(name).setLevel(level)
    context = DataContext.get_current()
    context.enable_progress_bars = verbose
    context.print_on_execution_start = verbose
