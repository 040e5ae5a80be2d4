"""`python -m s2frames` is the command line."""

from __future__ import annotations

from s2frames.cli import main

if __name__ == "__main__":
    main()
