"""Mutants of the plugin protocol, each with one incorrect response."""

import contextlib
import itertools
import json
import os
import threading
from collections.abc import Iterator

from graphdriver_conformance.host import namespaces
from graphdriver_mutants.registry import mutant
from graphdriver_mutants.wire_server import Answer, Request, Truncated, WireMutant

__all__: list[str] = []

_PARENTLESS = ("GraphDriver.Changes", "GraphDriver.DiffSize", "GraphDriver.Diff")
_FIELDS = {"ID", "Parent", "MountLabel", "StorageOpt", "Home", "Opts", "UIDMaps", "GIDMaps"}


@mutant("WIR-001", bug="a plugin written for one start of the daemon")
class ActivatesOnce(WireMutant):
    """Only the first Plugin.Activate returns the implemented protocols."""

    _activated = False

    def answer(self, request: Request) -> Answer:
        if request.call == "Plugin.Activate":
            if self._activated:
                return Answer.of(Implements=[])
            self._activated = True
        return self.forward(request)


@mutant("WIR-002", bug="go-plugins-helpers: fields that 1.12 does not send")
class WantsOptions(WireMutant):
    """Init without Opts is refused."""

    def answer(self, request: Request) -> Answer:
        if request.call == "GraphDriver.Init" and "Opts" not in request.body:
            return Answer.of(400, Err="Opts is missing")
        return self.forward(request)


@mutant("WIR-002", bug="the documentation's ContainerID, HostID, Size")
class MapsAsDocumented(WireMutant):
    """Id maps are read from the field names of the documentation, which differ from Docker's."""

    def answer(self, request: Request) -> Answer:
        if request.call == "GraphDriver.Init":
            request = request.with_body(UIDMaps=None, GIDMaps=None)
        return self.forward(request)


@mutant("WIR-003", bug="a plugin whose Put has an empty response")
class PutAnswersNothing(WireMutant):
    """The response to Put has no body."""

    def answer(self, request: Request) -> Answer:
        answer = self.forward(request)
        return Answer(answer.status, b"") if request.call == "GraphDriver.Put" else answer


@mutant("WIR-004", bug="a handler that logs its error and continues")
class SizeErrorSwallowed(WireMutant):
    """A failed DiffSize returns 0."""

    def answer(self, request: Request) -> Answer:
        answer = self.forward(request)
        failed = request.call == "GraphDriver.DiffSize" and answer.status != 200
        return Answer.of(Size=0) if failed else answer


@mutant("WIR-005", bug="a handler for every path")
class UnknownIsFine(WireMutant):
    """Unknown methods succeed."""

    def answer(self, request: Request) -> Answer:
        answer = self.forward(request)
        return Answer.of() if answer.status == 404 else answer


@mutant("WIR-006", bug="docker/go-plugins-helpers: log.Fatal in a handler")
class DiesOfNonsense(WireMutant):
    """A request that is not JSON terminates the process."""

    def answer(self, request: Request) -> Answer:
        try:
            json.loads(request.data or b"{}")
        except (ValueError, RecursionError):
            os._exit(1)
        return self.forward(request)


@mutant("WIR-006", bug="decoding errors that are ignored")
class NonsenseIsEmpty(WireMutant):
    """Exists with a body that is not a JSON object returns false."""

    def answer(self, request: Request) -> Answer:
        answer = self.forward(request)
        ignored = request.call == "GraphDriver.Exists" and answer.status == 400
        return Answer.of() if ignored else answer


@mutant("WIR-007", bug="Docker's fields are omitempty")
class WantsParent(WireMutant):
    """Changes, DiffSize and Diff without Parent are refused."""

    def answer(self, request: Request) -> Answer:
        if request.call in _PARENTLESS and "Parent" not in request.body:
            return Answer.of(400, Err="Parent is missing")
        return self.forward(request)


@mutant("WIR-008", bug="Go: Decoder.DisallowUnknownFields")
class UnknownFieldsRefused(WireMutant):
    """Requests with an unknown field are refused."""

    def answer(self, request: Request) -> Answer:
        if unknown := set(request.body) - _FIELDS:
            return Answer.of(400, Err=f"unknown field {min(unknown)}")
        return self.forward(request)


@mutant("WIR-009", bug="moby: integration/plugin/graphdriver/external_test.go")
class DiffErrorIsArchive(WireMutant):
    """A failed Diff returns status 200 and JSON."""

    def answer(self, request: Request) -> Answer:
        answer = self.forward(request)
        if request.call == "GraphDriver.Diff" and answer.pieces is None:
            return Answer(200, answer.data)
        return answer


@mutant("WIR-010", bug="a handler that reads everything before it writes")
class DiffIsGathered(WireMutant):
    """Diff is collected in memory before it is sent."""

    def answer(self, request: Request) -> Answer:
        answer = self.forward(request)
        if answer.pieces is None:
            return answer
        return Answer(200, b"", iter([b"".join(answer.pieces)]))


@mutant("WIR-011", bug="a Put that only follows a complete copy")
class HoldsWhatIsNotRead(WireMutant):
    """Diff holds the layer until the archive is read to its end."""

    def answer(self, request: Request) -> Answer:
        if request.call != "GraphDriver.Diff":
            return self.forward(request)
        self._verb("Get", request)
        answer = self.forward(request)
        if answer.pieces is None:
            self._verb("Put", request)
            return answer
        return Answer(200, b"", self._held(request, answer.pieces))

    def _held(self, request: Request, pieces: Iterator[bytes]) -> Iterator[bytes]:
        yield from pieces
        self._verb("Put", request)

    def _verb(self, verb: str, request: Request) -> None:
        data = json.dumps({"ID": request.body.get("ID")}).encode()
        self.forward(Request(f"GraphDriver.{verb}", "", {}, iter(()), data))


@mutant("WIR-012", bug="http.server does not support chunks")
class OneChunk(WireMutant):
    """Only the first chunk of the body of ApplyDiff is read."""

    def answer(self, request: Request) -> Answer:
        if request.call == "GraphDriver.ApplyDiff":
            first = next(request.pieces, b"")
            for _ in request.pieces:
                pass
            request.pieces = iter([first])
        return self.forward(request)


@mutant(
    "WIR-013", bug="Docker's retries of requests to a plugin that reads until the connection ends"
)
class TruncationIsEnd(WireMutant):
    """A body that ends early is treated as complete."""

    def answer(self, request: Request) -> Answer:
        if request.call == "GraphDriver.ApplyDiff":
            request.pieces = self._completed(request.pieces)
        return self.forward(request)

    def _completed(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """Yield complete blocks of the body, then zeros: an archive without its last members."""
        data = bytearray()
        with contextlib.suppress(Truncated):
            for piece in pieces:
                data += piece
            yield bytes(data)
            return
        yield bytes(1024)


@mutant("WIR-014", bug="Docker does not encode, so a plugin does not decode")
class QueryAsItIs(WireMutant):
    """The query of ApplyDiff is not decoded."""

    def answer(self, request: Request) -> Answer:
        request.query = request.query.replace("%", "%25")
        return self.forward(request)


@mutant("WIR-015", bug="a plugin that writes booleans as strings")
class CapabilityIsText(WireMutant):
    """ReproducesExactDiffs is the string "false"."""

    def answer(self, request: Request) -> Answer:
        answer = self.forward(request)
        if request.call == "GraphDriver.Capabilities":
            declared = {"ReproducesExactDiffs": "false"}
            return Answer.of(**{**answer.body, "Capabilities": declared})
        return answer


@mutant("WIR-016", bug="a plugin that returns an error for a missing layer")
class NoLayerIsAnError(WireMutant):
    """Exists of an unknown layer fails."""

    def answer(self, request: Request) -> Answer:
        answer = self.forward(request)
        if request.call == "GraphDriver.Exists" and not answer.body.get("Exists"):
            return Answer.of(404, Err="no such layer")
        return answer


@mutant("WIR-017", bug="a server that serves one request at a time")
class OneAtATime(WireMutant):
    """While an archive is sent, all other requests are refused."""

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]
        self._packing = threading.Lock()

    def answer(self, request: Request) -> Answer:
        if self._packing.locked() and request.call != "GraphDriver.Cleanup":
            return Answer.of(503, Err="busy")
        answer = self.forward(request)
        if answer.pieces is not None:
            return Answer(200, b"", self._alone(answer.pieces))
        return answer

    def _alone(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        with self._packing:
            yield from pieces


@mutant("WIR-018", bug="a plugin that stores its layers by process")
class HomeByProcess(WireMutant):
    """Each process has its own home."""

    def answer(self, request: Request) -> Answer:
        if request.call == "GraphDriver.Init":
            request = request.with_body(Home=f"{request.body.get('Home')}/{os.getpid()}")
        return self.forward(request)


@mutant("WIR-019", bug="HTTP/1.0 servers")
class HangsUpEachTime(WireMutant):
    """The connection is closed after each response."""

    def answer(self, request: Request) -> Answer:
        answer = self.forward(request)
        answer.headers["Connection"] = "close"
        return answer


@mutant("WIR-020", bug="a plugin that creates its home in each Init")
class HomeByInit(WireMutant):
    """Each Init creates a new home."""

    _numbers = itertools.count()

    def answer(self, request: Request) -> Answer:
        if request.call == "GraphDriver.Init":
            request = request.with_body(Home=f"{request.body.get('Home')}/{next(self._numbers)}")
        return self.forward(request)


@mutant("WIR-021", bug="plugins in containers without a propagated mount")
class MountsElsewhere(WireMutant):
    """The plugin mounts in its own mount namespace."""

    @classmethod
    def prepare(cls) -> None:
        namespaces.leave()


@mutant("WIR-022", bug="Go: encoding/json")
class NamesAreReplaced(WireMutant):
    """Changes replaces bytes that are not UTF-8, which results in another path."""

    def answer(self, request: Request) -> Answer:
        answer = self.forward(request)
        if request.call == "GraphDriver.Changes" and b"UTF-8" in answer.data:
            return Answer.of(Changes=[{"Path": "/caf\ufffd", "Kind": 1}])
        return answer


@mutant("WIR-023", bug="responses truncated to a page")
class ChangesAreCut(WireMutant):
    """Changes returns at most a thousand paths."""

    def answer(self, request: Request) -> Answer:
        answer = self.forward(request)
        rows = answer.body.get("Changes")
        return Answer.of(Changes=rows[:1000]) if rows else answer


@mutant("WIR-024", bug="a plugin written for one version of Docker")
class OneVersionOnly(WireMutant):
    """Only requests that accept v1.2 are served."""

    def answer(self, request: Request) -> Answer:
        if "v1.2" not in request.headers.get("Accept", ""):
            return Answer.of(406, Err="upgrade your Docker")
        return self.forward(request)
