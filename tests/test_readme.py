"""Every Python block of the README runs, in order, as a reader would paste them."""

import re
from pathlib import Path

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def test_python_blocks_run():
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert blocks
    namespace = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), namespace)


def test_the_two_commands_and_the_claim_come_first():
    first_screen = README[:README.index("\n## ")]
    for line in ("pip install . && minicircuits tour", 'pip install ".[test]" && pytest',
                 "mc.expand_logits", "mc.rebuild"):
        assert line in first_screen
