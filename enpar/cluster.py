"""Ray: joined where RAY_ADDRESS says, or started on this machine; quiet unless asked."""

import logging
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray._private import ray_constants
from ray._private import worker as ray_worker
from ray.data import DataContext

from enpar.errors import UserError

log = logging.getLogger("enpar")
_LOOPBACK = ("127.0.0.1", "localhost")
_PATIENCE = 5.0  # seconds for a cluster's port to answer
_print = ray_worker.print_to_stdstream
_TOKEN = "set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH to the cluster's token"  # noqa: S105


def address() -> str | None:
    """The cluster that RAY_ADDRESS names; None where Ray is started on this machine.

    Raises:
        UserError: it is the address of something else.
    """
    given = os.environ.get("RAY_ADDRESS", "")
    if given in ("", "local"):
        return None
    if (given != "auto" and not given.rpartition(":")[2].isdigit()) or "://" in given:
        raise UserError(
            f"RAY_ADDRESS: {given}: expected the head's host:port, such as 10.0.0.1:6379, or auto; "
            "a dashboard's address is for `ray job submit --address`"
        )
    return given


def connect(dashboard: bool = False) -> None:
    """Join or start Ray for this process; a second call changes nothing.

    Args:
        dashboard: start one on this machine, too: without it Ray Train leaves behind what a stopped trial had reserved.

    Raises:
        UserError: the cluster is not there, or refuses this process.
    """
    if ray.is_initialized():
        return
    verbose = log.isEnabledFor(logging.DEBUG)
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else a FutureWarning at each start
    level = logging.INFO if verbose else logging.ERROR
    options = {"logging_level": level, "log_to_driver": verbose}
    # What nodes and workers died of Ray prints to stdout, whatever `log_to_driver` says.
    ray_worker.print_to_stdstream = _to_stderr
    if cluster := address():
        _join(cluster, options)
    else:
        _listen_on_loopback()
        # Without an address Ray would join whatever cluster `ray start` was last called for on this machine.
        ray.init("local", **(_dashboard() if dashboard else {"include_dashboard": False}), **options)
    for name in ("ray", "ray.train"):
        logging.getLogger(name).setLevel(level)
    for name in ("ray.data", "ray.tune"):  # what they log as an error they raise, or hand on as a trial's reason
        logging.getLogger(name).setLevel(level if verbose else logging.CRITICAL)
    context = DataContext.get_current()
    context.enable_progress_bars = verbose
    context.print_on_execution_start = verbose


def _to_stderr(data: dict[str, Any], **how: Any) -> None:  # noqa: ANN401
    """What Ray prints, if it is wanted; stdout is the result's."""
    if log.isEnabledFor(logging.DEBUG):
        _print({**data, "is_err": True}, **how)


def _dashboard() -> dict[str, Any]:
    """A dashboard whose address this Ray's processes know: on a machine with several Rays they would find none."""
    with socket.socket() as free:
        free.bind((_LOOPBACK[0], 0))
        port = free.getsockname()[1]
    os.environ["RAY_API_SERVER_ADDRESS"] = f"http://{_LOOPBACK[0]}:{port}"
    return {"include_dashboard": True, "dashboard_port": port}


def _join(cluster: str, options: dict[str, Any]) -> None:
    _see_that_it_answers(cluster)
    token = os.environ.get("RAY_AUTH_TOKEN_PATH", "")
    if token and not os.access(token, os.R_OK):  # Ray would abort
        raise UserError(f"RAY_AUTH_TOKEN_PATH: {token} cannot be read; {_TOKEN}")
    try:
        with _one_attempt():
            ray.init(address=cluster, **options)
    except (ConnectionError, RuntimeError, ray.exceptions.AuthenticationError) as error:
        told = f"{error} {error.__cause__ or ''}"
        if "Authentication" in told:
            raise UserError(f"RAY_ADDRESS: {cluster} refuses the token, or the lack of one: {_TOKEN}") from None
        raise UserError(f"RAY_ADDRESS: {cluster}: {told.strip().splitlines()[0]}") from None


def _see_that_it_answers(cluster: str) -> None:
    """Ray would wait for minutes; and it takes 127.0.0.1 for the machine's outward address."""
    if cluster == "auto":
        return
    host, _, port = cluster.rpartition(":")
    here = host in _LOOPBACK
    if _answers(ray.util.get_node_ip_address() if here else host, int(port)):
        return
    if not here or not _answers(host, int(port)):
        raise UserError(f"RAY_ADDRESS: no Ray cluster answers at {cluster}; start one (cluster/README.md) or unset it")
    _listen_on_loopback()


def _answers(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=_PATIENCE).close()
    except OSError:
        return False
    return True


def _listen_on_loopback() -> None:
    """Keep Ray to 127.0.0.1, as it does by itself on macOS; Ray read the variable when it was imported."""
    os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR] = "0"  # for its other processes
    ray_constants.ENABLE_RAY_CLUSTER = False


@contextmanager
def _one_attempt() -> Iterator[None]:
    """Ray would try twenty times; and what its C++ writes to stderr while it tries, no setting of it silences."""
    wait = "RAY_gcs_server_port_wait_time_s"
    before = os.environ.get(wait)
    os.environ[wait] = "1"
    sys.stderr.flush()
    stderr, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(nowhere)
        os.environ.pop(wait)
        if before is not None:
            os.environ[wait] = before
