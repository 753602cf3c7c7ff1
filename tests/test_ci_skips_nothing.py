"""The rule of conftest.py that a skip is a failure in CI, and only there."""

from __future__ import annotations

from pathlib import Path

import pytest

TESTS = {
    "test_skipped_from_inside": """
        import pytest

        def test_skips():
            pytest.skip("no engine")
        """,
    "test_skipped_by_a_mark": """
        import pytest

        @pytest.mark.skipif(True, reason="no engine")
        def test_skips():
            pass
        """,
    "test_skipped_by_a_fixture": """
        import pytest

        @pytest.fixture
        def engine():
            pytest.skip("no engine")

        def test_skips(engine):
            pass
        """,
    "test_skipped_as_a_module": """
        import pytest

        pytest.skip("no engine", allow_module_level=True)
        """,
    "test_not_skipped": """
        import pytest

        def test_passes():
            pass

        @pytest.mark.xfail(reason="known", strict=True)
        def test_fails_as_expected():
            assert False
        """,
}


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    """A project of those tests that has this project's conftest.py."""
    pytester.makeconftest((Path(__file__).parent / "conftest.py").read_text(encoding="utf-8"))
    pytester.makepyfile(**TESTS)
    return pytester


def test_every_way_to_skip_fails_in_ci(project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    result = project.runpytest("--continue-on-collection-errors")
    # pytest counts a failure before a test's own lines, as in a mark, a fixture or a module, as an error.
    result.assert_outcomes(passed=1, xfailed=1, failed=1, errors=3)
    result.stdout.fnmatch_lines(["*CI skips nothing*no engine*"] * 4)


def test_a_skip_is_a_skip_elsewhere(project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    project.runpytest().assert_outcomes(passed=1, xfailed=1, skipped=4)
