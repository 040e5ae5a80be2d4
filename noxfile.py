"""The project's checks. `nox` runs all of them; `nox -s NAME` runs one."""

from __future__ import annotations

import shutil
from pathlib import Path

import nox

# Dependency groups are read by nox itself from this version on.
nox.needs_version = ">=2025.2.9"
nox.options.error_on_external_run = True
# Tests come last, so that a run ends with their summary.
nox.options.sessions = ["lint", "types", "core_only", "docs", "tests"]

PYPROJECT = nox.project.load_toml("pyproject.toml")


def install_group(session: nox.Session, group: str) -> None:
    """Install a dependency group of pyproject.toml."""
    session.install(*nox.project.dependency_groups(PYPROJECT, group))


def install_wheel(session: nox.Session, extras: str = "") -> None:
    """Build the wheel and install it, never the checkout: what is tested is what users get."""
    wheels = Path(session.create_tmp()).resolve() / "wheels"
    shutil.rmtree(wheels, ignore_errors=True)
    session.run("python", "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(wheels), ".")
    (wheel,) = wheels.glob("s2frames-*.whl")
    session.install("--force-reinstall", f"s2frames{extras} @ {wheel.as_uri()}")


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and format."""
    install_group(session, "lint")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")


@nox.session
def types(session: nox.Session) -> None:
    """Check types, strictly, in the packages, the tests and this file; public uses twice."""
    session.install(".[all]")
    install_group(session, "types")
    session.run("mypy")
    session.run("pyright")


@nox.session
def core_only(session: nox.Session) -> None:
    """Prove that the core needs attrs alone, and that a missing extra names itself."""
    install_wheel(session)
    session.run("python", "-P", "tests/without_extras.py")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation; a warning is an error."""
    session.install(".[all]")
    install_group(session, "docs")
    session.run("sphinx-build", "-W", "--keep-going", "-E", "docs", "docs/_build/html")


def run_pytest(session: nox.Session, *arguments: str, **env: str) -> None:
    """Run tests on the built wheel, with these arguments and those of the command line."""
    install_wheel(session, "[all]")
    install_group(session, "test")
    session.run(
        "pytest",
        "--installed",
        *arguments,
        *session.posargs,
        # Keeps the checkout out of sys.path, in subprocesses too.
        env={"PYTHONSAFEPATH": "1", **env},
    )


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests on the built wheel."""
    run_pytest(session, "--hypothesis-profile=ci")


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """Run a benchmark: `nox -s bench -- tests/benchmarks/NAME.py [ARGUMENT...]`."""
    if not session.posargs:
        session.error("name a script: nox -s bench -- tests/benchmarks/NAME.py [ARGUMENT...]")
    install_wheel(session, "[all]")
    session.run("python", *session.posargs)


@nox.session(default=False)
def simulate(session: nox.Session) -> None:
    """Simulate sessions under faults: `nox -s simulate -- --seeds 20000`."""
    install_wheel(session, "[all]")
    session.run("python", "-P", "-m", "simulation", *session.posargs, env={"PYTHONPATH": "tests"})


@nox.session(default=False)
def fuzz(session: nox.Session) -> None:
    """Feed the decoders a hundred thousand mutated inputs: `nox -s fuzz -- -k reader`."""
    run_pytest(
        session,
        # A decoder's share takes minutes.
        "--timeout=0",
        "--durations=0",
        "tests/hostile/test_decoders.py",
        S2FRAMES_HOSTILE_INPUTS="100000",
    )


@nox.session(default=False)
def disturb(session: nox.Session) -> None:
    """Break things around the real server: `nox -s disturb -- crash --runs 20`, or `faults`."""
    install_wheel(session, "[all]")
    install_group(session, "test")
    session.run(
        "python", "-P", "-m", "real_server.run", *session.posargs, env={"PYTHONPATH": "tests"}
    )


@nox.session(default=False)
def load(session: nox.Session) -> None:
    """Open ten thousand streams of the real server, and close them: `nox -s load`."""
    run_pytest(
        session,
        # Each client takes minutes.
        "--timeout=0",
        # Shows what the process holds before and after.
        "-rP",
        "tests/real_server/test_load.py",
        S2FRAMES_LOAD_STREAMS="10000",
    )
