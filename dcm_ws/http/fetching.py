"""
Fetches small documents over HTTP: limited in size, without compression and without redirects.
"""

from __future__ import annotations

from http import HTTPStatus

from OpenSSL.SSL import Error as TLSError
from service_identity import VerificationError
from treq.client import HTTPClient
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone, ResponseNeverReceived
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer


class TooLargeError(ValueError):
    """
    A document has more than so many bytes.
    """

    def __init__(self, most: int) -> None:
        super().__init__(f"it is larger than {most} bytes")


async def fetch(agent: IAgent, url: str, most: int) -> bytes:
    """
    Fetch a document.

    @param agent: makes the request.
    @param most: its bytes, at most.
    @raise ValueError: the response is not a whole document of that size; L{TooLargeError} if it is larger.  What else
        may be raised is for L{reason_of}.
    """
    # a redirect could lead to an address that nobody has checked
    response = await HTTPClient(_Uncompressed(agent)).get(url, allow_redirects=False, unbuffered=True)
    body = _Body(most)
    response.original.deliverBody(body)
    text = await body.done
    if response.code != HTTPStatus.OK:
        raise ValueError(f"it answers {response.code}")
    return text


def reason_of(failure: Failure) -> str:
    """
    Why a server could not be asked.
    """
    error = failure.value
    if isinstance(error, ResponseNeverReceived) and error.reasons:
        failure = error.reasons[0]
        error = failure.value
    if isinstance(error, VerificationError):
        return "its certificate is for another name"
    if isinstance(error, TLSError):
        # such as "certificate verify failed"
        reason = ", ".join(text for _, _, text in error.args[0]) or "TLS failed"
        return f"{reason}; SSL_CERT_FILE may name the certificates of other authorities"
    return failure.getErrorMessage() or type(failure.value).__name__


@implementer(IAgent)
class _Uncompressed:
    """
    Fetches without compression, so that the limit holds for all that has to be in memory.

    @param agent: makes the requests.
    """

    def __init__(self, agent: IAgent) -> None:
        self._agent = agent

    def request(
        self, method: bytes, uri: bytes, headers: Headers | None = None, bodyProducer: IBodyProducer | None = None
    ) -> Deferred[IResponse]:
        headers = Headers() if headers is None else headers.copy()
        headers.setRawHeaders(b"Accept-Encoding", [b"identity"])
        return self._agent.request(method, uri, headers, bodyProducer).addCallback(_as_it_comes)


def _as_it_comes(response: IResponse) -> IResponse:
    # treq would expand it
    response.headers.removeHeader(b"Content-Encoding")
    return response


class _Body(Protocol):
    """
    Receives the body of a response.

    @param most: its bytes, at most.

    @ivar done: fires with the body.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._data = bytearray()
        self._is_large = False
        self.done: Deferred[bytes] = Deferred(lambda _: self._end())

    def dataReceived(self, data: bytes) -> None:
        self._data += data
        if len(self._data) > self._most and not self._is_large:
            self._is_large = True
            self._end()

    def _end(self) -> None:
        assert self.transport is not None
        self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.done.called:
            # it took too long
            return
        if self._is_large:
            self.done.errback(TooLargeError(self._most))
        elif reason.check(ResponseDone, PotentialDataLoss):
            self.done.callback(bytes(self._data))
        else:
            self.done.errback(ValueError("the response is incomplete"))
