"""Starting TensorFlow without the page of remarks that it writes at every start."""

from __future__ import annotations

import os
import sys
import tempfile

__all__ = ["start_tensorflow"]


def start_tensorflow() -> None:
    """Loads TensorFlow; what it writes meanwhile is shown only if it fails.

    The remarks (instruction sets, absent GPU drivers) come from C++ before any setting of TensorFlow's can reach
    them, so the file descriptor itself is held back.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with tempfile.TemporaryFile() as remarks:
        sys.stderr.flush()
        terminal = os.dup(2)
        os.dup2(remarks.fileno(), 2)
        try:
            import tensorflow as tf

            tf.config.list_physical_devices()
        except BaseException:
            remarks.seek(0)
            os.write(terminal, remarks.read())
            raise
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
