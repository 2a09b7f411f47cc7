"""A time can always be shown, whatever an old log holds."""

from __future__ import annotations

import pytest

from hostler.faces.http.form import stamp
from hostler.service.times import moment


@pytest.mark.parametrize(
    ("at", "shown"),
    [
        (0.0, "1970-01-01T00:00:00.000Z"),
        (1.5, "1970-01-01T00:00:01.500Z"),
        (-1e300, "1970-01-01T00:00:00.000Z"),
        (1e300, "9999-01-01T00:00:00.000Z"),
        (float("nan"), "9999-01-01T00:00:00.000Z"),
    ],
)
def test_a_time_of_no_sensible_year_is_shown_as_the_nearest(at: float, shown: str) -> None:
    assert stamp(at) == shown
    assert f"{moment(at):%Y-%m-%dT%H:%M:%S}" == shown[:19]
