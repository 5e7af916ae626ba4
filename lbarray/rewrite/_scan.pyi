class Scanner:
    def __init__(
        self,
        named: tuple[bytes, ...],
        ends: tuple[bytes, ...],
        everywhere: tuple[bytes, ...],
        simple: tuple[bytes, ...],
        deciding: tuple[bytes, ...],
        /,
    ) -> None: ...
    def scan(self, data: bytes, at: int, size: int, /) -> tuple[int, int, int, bytes | None, bytes | None]: ...
