import os

from tfopt.benchmark.machine import this_machine


def test_the_machine_is_described():
    machine = this_machine()
    assert machine.cpu
    assert 1 <= machine.logical_cores <= os.cpu_count()
    assert machine.memory_bytes is None or machine.memory_bytes > 2**27
    assert {"tfopt", "ai-edge-litert", "numpy"} <= set(machine.versions)
