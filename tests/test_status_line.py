import io

import pytest

from tfopt.status_line import status_line


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("stream", "is_shown"), [(Terminal(), True), (io.StringIO(), False)])
def test_it_is_shown_on_a_terminal_alone(stream: io.StringIO, is_shown: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # as Jupyter has it
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stderr", stream)
    with status_line("Converting to model.tflite"):
        pass
    assert ("Converting to model.tflite" in stream.getvalue()) is is_shown
    assert bool(stream.getvalue()) is is_shown
