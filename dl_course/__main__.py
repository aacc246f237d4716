"""`python -m dl_course …` is `dl-course …`."""

import sys

from dl_course.cli import main

if __name__ == "__main__":
    sys.exit(main())
