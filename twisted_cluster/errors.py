"""
Every error this package raises on purpose, split by whose fault it is.

An L{OperatorError} is mended by whoever runs the command, an L{AppError} by
the author of the app, a L{PeerError} by neither: the other end of a channel
or of the admin socket did what its protocol forbids.
"""

from __future__ import annotations


class ClusterError(Exception):
    """
    Base of all errors of this package.
    """


class OperatorError(ClusterError):
    """
    The operator asked for something that can't be had.

    @ivar what: What can't be done, the words after "can't".
    @ivar cause: Why not.
    @ivar remedy: What to do about it.
    """

    def __init__(self, what: str, cause: str, remedy: str) -> None:
        super().__init__(f"can't {what}: {cause}; {remedy}")
        self.what = what
        self.cause = cause
        self.remedy = remedy


class ConfigError(OperatorError):
    """
    A value on the command line or in the config file is wrong.
    """


class ListenError(OperatorError):
    """
    A listener can't be bound.
    """


class AdminError(OperatorError):
    """
    The admin socket can't be bound or reached, or it refused a command.
    """


class ReloadRefused(OperatorError):
    """
    A reload, restart or scale can't begin now: another one is under way, or
    the cluster is stopping.
    """


class NoSuchSlot(OperatorError):
    """
    A command names a slot that the cluster does not have.
    """


class AppError(ClusterError):
    """
    The app misbehaved.

    @ivar traceback: The app's traceback as text, or an empty string.
    """

    def __init__(self, message: str, traceback: str = "") -> None:
        super().__init__(message)
        self.traceback = traceback


class AppLoadError(AppError):
    """
    The app can't be imported, or is of a type that can't be served.
    """


class ReloadFailed(AppError):
    """
    A reload was aborted because a replacement crashed or was not Ready in
    time.  The old generation goes on serving.
    """


class PeerError(ClusterError):
    """
    The other end of a channel or an admin connection broke the protocol.
    """


class ChannelLost(PeerError):
    """
    The channel to a worker is gone.
    """


class ConnectionMigrated(ClusterError):
    """
    The reason with which a protocol ends whose connection goes on in another
    worker.
    """

    def __init__(self) -> None:
        super().__init__("the connection goes on in another worker")


class QueueFull(ClusterError):
    """
    Too much waits already for a process that reads slowly, or not at all.
    """


class CallFailed(ClusterError):
    """
    A message can't be delivered, or a call has no answer: nobody is there,
    nobody handles it, or who handles it failed.

    @ivar reason: Why.
    """

    def __init__(self, what: str, reason: str) -> None:
        super().__init__(f"can't {what}: {reason}")
        self.reason = reason


class CallTimedOut(CallFailed):
    """
    A call has had no answer for as long as somebody was willing to wait.  It
    may have been carried out, or still be.
    """

    def __init__(self, what: str, timeout: float) -> None:
        super().__init__(what, f"no answer within {timeout:g} s")


class StateUnavailable(ClusterError):
    """
    State, cache or leases can't be reached now.
    """


class LeaseTimedOut(ClusterError):
    """
    Nobody gave up a lease for as long as somebody was willing to wait.
    """
