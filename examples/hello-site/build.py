"""The build: puts what is known at build time into the page, and leaves the result in public/."""

import os
import pathlib
import string

here = pathlib.Path(__file__).parent
commit = os.environ.get("ONWARD_COMMIT", "a working copy")[:12]
greeting = (here / "greeting.txt").read_text().strip()
page = string.Template((here / "page.html").read_text())

public = here / "public"
public.mkdir(exist_ok=True)
(public / "index.html").write_text(page.safe_substitute(greeting=greeting, commit=commit))
print(f"built public/index.html from {commit}")
