"""NVIDIA's driver and cards, as its own library tells of them."""

import ctypes

import pytest
from stand_ins.nvidia_driver import LIBRARY, Libcuda, loader

from nes2net_runtime.inference.nvidia import Card, Driver, find_driver


@pytest.mark.parametrize(
    ("libcuda", "expected"),
    [
        (None, None),
        (Libcuda([], "12.6"), Driver("12.6", ())),
        (
            Libcuda([("Orin", "8.7"), ("NVIDIA RTX PRO 6000", "12.0")], "13.0"),
            Driver("13.0", (Card("Orin", "8.7"), Card("NVIDIA RTX PRO 6000", "12.0"))),
        ),
    ],
)
def test_what_a_driver_tells(monkeypatch, libcuda, expected) -> None:
    libraries = {} if libcuda is None else {LIBRARY: libcuda}
    monkeypatch.setattr(ctypes, "CDLL", loader(libraries))
    assert find_driver() == expected


def test_the_real_driver_or_none() -> None:
    """Whatever this machine has, asking does not fail."""
    driver = find_driver()
    assert driver is None or isinstance(driver.cards, tuple)
